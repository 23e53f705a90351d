/*
 * From a text, or two, to labels: tokenizer, engine, softmax or sigmoid.
 *
 * Takes an opened bundle and an engine for one of its artifacts. Returns labels with probabilities, best first. Leaves
 * out: threads. Call it from a worker thread or a coroutine on one; it blocks until it has an answer.
 */
package io.pocketbert.core

/** A label and its probability. */
data class Prediction(val label: String, val score: Float)

/** A bundle that labels texts, opened with one engine; safe to share between threads, which take turns at the engine. */
class TextClassifier private constructor(private val runner: Runner) : OpenedBundle by runner {
    /** Throws [BundleException] for a bundle of another task, or whose tokenizer this version does not read. */
    constructor(bundle: Bundle, artifact: Artifact, engine: Engine) : this(Runner(bundle, artifact, engine, Task.SEQUENCE_CLASSIFICATION))

    /**
     * The labels of a text, or of two together, best first; equal scores keep the order of the labels. Throws [BundleException] for a
     * second text where the bundle takes one.
     */
    fun classify(text: String, secondText: String? = null): List<Prediction> = predictions(runner.run(runner.encode(text, secondText)))

    /**
     * The labels of a text, or null if this was called again before the answer was there: what a user types overtakes
     * what they typed before. A waiting call gives up as soon as its turn comes, so the newest text waits for one run
     * at most. Throws [InterruptedException] if its thread is interrupted while it waits.
     */
    fun classifyNewest(text: String, secondText: String? = null): List<Prediction>? =
        runner.runNewest { runner.encode(text, secondText) }?.let(::predictions)

    /** Makes every [classifyNewest] that is under way give null. */
    fun cancel() = runner.cancel()

    private fun predictions(logits: FloatArray): List<Prediction> {
        val (labels, scores) = runner.manifest.labels to runner.probabilities(logits)
        return labels.indices.sortedByDescending { scores[it] }.map { Prediction(labels[it], scores[it]) }
    }
}
