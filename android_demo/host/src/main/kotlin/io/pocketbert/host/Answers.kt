/*
 * Classifies texts as an app would: installed bundle, self-check, tokenizer, engine, probabilities.
 *
 * Takes a kind of engine, the folder of a bundle, a scratch folder, and texts on standard input: UTF-16 units counted by an int32. Returns
 * for each text, on standard output, the number of its best label as int32 and the probability of each label as float32, in the
 * order of the manifest. All numbers are big-endian.
 */
package io.pocketbert.host

import io.pocketbert.core.BundleStore
import io.pocketbert.core.EngineKind
import io.pocketbert.core.SelfChecks
import java.io.DataInputStream
import java.io.DataOutputStream
import java.io.EOFException
import java.io.File

private const val BUFFER = 1 shl 16

fun answer(kind: EngineKind, bundle: File, scratch: File) {
    val installed = BundleStore(File(scratch, "store")).install({ File(bundle, it).inputStream() }, kind.format)
    val output = DataOutputStream(System.out.buffered(BUFFER))
    SelfChecks(File(scratch, "checks"), "host").open(installed, kind).use { classifier ->
        val labels = installed.bundle.manifest.labels
        for (text in texts(DataInputStream(System.`in`.buffered(BUFFER)))) {
            val found = classifier.classify(text)
            output.writeInt(labels.indexOf(found.first().label))
            labels.forEach { label -> output.writeFloat(found.single { it.label == label }.score) }
        }
    }
    output.flush()
}

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
