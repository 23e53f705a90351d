/*
 * Opens an exported bundle and answers its golden cases with an engine that knows the answers by the ids.
 *
 * Takes the folder. Prints the labels of the first golden case, or the error. What it proves: manifest, hashes, tokenizer
 * and scoring are read as the exporter wrote them.
 */
package io.pocketbert.core

import java.io.File
import kotlin.system.exitProcess

private class KnowingEngine(bundle: Bundle, artifact: Artifact) : Engine {
    private val answers = bundle.golden().associate { case ->
        val length = if (artifact.anyLength) case.ids.size else bundle.manifest.paddedLength(case.ids.size)
        val padded = case.ids.toList() + List(length - case.ids.size) { bundle.manifest.padId }
        padded to case.oracle.getValue(artifact.activations)
    }

    override fun run(inputIds: IntArray) = answers[inputIds.toList()] ?: FloatArray(0)
}

fun main(arguments: Array<String>) {
    try {
        val bundle = Bundle.open(File(arguments[0]))
        for (artifact in bundle.manifest.artifacts) {
            bundle.verify(artifact)
            TextClassifier(bundle, artifact, KnowingEngine(bundle, artifact)).use { classifier ->
                val gap = classifier.selfCheck()
                println("${artifact.format} $gap ${classifier.classify(bundle.golden()[0].text).joinToString { it.label }}")
            }
        }
    } catch (problem: BundleException) {
        println(problem.message)
        exitProcess(2)
    }
}
