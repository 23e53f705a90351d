/*
 * Opens an exported bundle and answers its golden cases with an engine that knows the answers by the ids.
 *
 * Takes the folder. Prints what the first golden case becomes, or the error. What it proves: manifest, hashes, tokenizer
 * and scoring are read as the exporter wrote them.
 */
package io.pocketbert.core

import java.io.File
import kotlin.system.exitProcess

private class KnowingEngine(bundle: Bundle, artifact: Artifact) : Engine {
    private val answers = bundle.golden().cases.associate { case ->
        val length = if (artifact.anyLength) case.ids.size else bundle.manifest.paddedLength(case.ids.size)
        val padded = case.ids.toList() + List(length - case.ids.size) { bundle.manifest.padId }
        padded to unread(case.oracle.getValue(artifact.activations), bundle.manifest, length)
    }

    /** Logits as an engine gives them: rows of padding behind, and of two outputs one behind the other. */
    private fun unread(rows: FloatArray, manifest: Manifest, length: Int): FloatArray = when (manifest.task) {
        Task.SEQUENCE_CLASSIFICATION -> rows
        Task.TOKEN_CLASSIFICATION -> rows.copyOf(length * manifest.columns)
        Task.QUESTION_ANSWERING -> FloatArray(2 * length) { rows.getOrElse(it % length * 2 + it / length) { 0f } }
    }

    override fun run(inputIds: IntArray) = answers[inputIds.toList()] ?: FloatArray(0)
}

/** The gap of the self-check, and what the first golden case becomes. */
private fun check(bundle: Bundle, artifact: Artifact, engine: Engine): String {
    val case = bundle.golden().cases[0]
    return when (bundle.manifest.task) {
        Task.SEQUENCE_CLASSIFICATION -> TextClassifier(bundle, artifact, engine).use { opened ->
            "${opened.selfCheck()} ${opened.classify(case.text, case.textPair).joinToString { it.label }}"
        }
        Task.TOKEN_CLASSIFICATION -> TokenClassifier(bundle, artifact, engine).use { "${it.selfCheck()} ${it.entities(case.text).joinToString { entity -> entity.label }}" }
        Task.QUESTION_ANSWERING -> QuestionAnswerer(bundle, artifact, engine).use { "${it.selfCheck()} ${it.answer(case.text, case.textPair!!)?.text}" }
    }
}

fun main(arguments: Array<String>) {
    try {
        val bundle = Bundle.open(File(arguments[0]))
        for (artifact in bundle.manifest.artifacts) {
            bundle.verify(artifact)
            println("${artifact.format} ${check(bundle, artifact, KnowingEngine(bundle, artifact))}")
        }
    } catch (problem: BundleException) {
        println(problem.message)
        exitProcess(2)
    }
}
