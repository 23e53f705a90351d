/*
 * Answers texts as an app would: installed bundle, self-check, tokenizer, engine, and what the bundle's task makes of the logits.
 *
 * Takes a kind of engine, the folder of a bundle, a scratch folder, and texts on standard input: UTF-16 units counted by an int32; where
 * the bundle takes two texts, the second one follows the first. Returns on standard output, of a classifier: for each text the number of
 * its best label as int32 and the probability of each label as float32, in the order of the manifest; all numbers are big-endian. Of
 * the other tasks: a line for each entity or answer, the number of its text, label (none of an answer), start, end and score between tabs.
 */
package io.pocketbert.host

import io.pocketbert.core.BundleStore
import io.pocketbert.core.EngineKind
import io.pocketbert.core.QuestionAnswerer
import io.pocketbert.core.SelfChecks
import io.pocketbert.core.Task
import io.pocketbert.core.TextClassifier
import io.pocketbert.core.TokenClassifier
import java.io.DataInputStream
import java.io.DataOutputStream
import java.io.EOFException
import java.io.File

private const val BUFFER = 1 shl 16

fun answer(kind: EngineKind, bundle: File, scratch: File) {
    val installed = BundleStore(File(scratch, "store")).install({ File(bundle, it).inputStream() }, kind.format)
    val checks = SelfChecks(File(scratch, "checks"), "host")
    val manifest = installed.bundle.manifest
    val asked = texts(DataInputStream(System.`in`.buffered(BUFFER))).chunked(if (manifest.pairs) 2 else 1)
    when (manifest.task) {
        Task.SEQUENCE_CLASSIFICATION -> checks.open(installed, kind).use { label(it, manifest.labels, asked) }
        Task.TOKEN_CLASSIFICATION -> checks.open(installed, kind, ::TokenClassifier).use { classifier ->
            asked.forEachIndexed { i, texts -> classifier.entities(texts[0]).forEach { tell(i, it.label, it.start, it.end, it.score) } }
        }
        Task.QUESTION_ANSWERING -> checks.open(installed, kind, ::QuestionAnswerer).use { answerer ->
            asked.forEachIndexed { i, texts -> answerer.answer(texts[0], texts[1])?.run { tell(i, "", start, end, score) } }
        }
    }
}

private fun label(classifier: TextClassifier, labels: List<String>, asked: Sequence<List<String>>) {
    val output = DataOutputStream(System.out.buffered(BUFFER))
    for (texts in asked) {
        val found = classifier.classify(texts[0], texts.getOrNull(1))
        output.writeInt(labels.indexOf(found.first().label))
        labels.forEach { label -> output.writeFloat(found.single { it.label == label }.score) }
    }
    output.flush()
}

private fun tell(vararg row: Any) = println(row.joinToString("\t"))

private fun texts(input: DataInputStream) = sequence {
    while (true) {
        val count = try {
            input.readInt()
        } catch (_: EOFException) {
            break
        }
        yield(String(CharArray(count) { input.readChar() }))
    }
}
