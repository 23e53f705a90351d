/*
 * From a text to labels: tokenizer, engine, softmax or sigmoid.
 *
 * Takes an opened bundle and an engine for one of its artifacts. Gives labels with probabilities, best first. Leaves
 * out: threads. Call it from a worker thread or a coroutine on one; it blocks until it has an answer.
 */
package io.pocketbert.core

import java.util.concurrent.atomic.AtomicLong
import java.util.concurrent.locks.ReentrantLock
import kotlin.concurrent.withLock
import kotlin.math.abs
import kotlin.math.exp

/** A label and its probability. */
data class Prediction(val label: String, val score: Float)

/** A bundle opened with one engine; safe to share between threads, which take turns at the engine. */
class TextClassifier(bundle: Bundle, private val artifact: Artifact, private val engine: Engine) : AutoCloseable {
    private val manifest = bundle.manifest
    private val tokenizer = bundle.tokenizer()
    private val golden = bundle.golden()
    private val turn = ReentrantLock() // engines run one text at a time
    private val newest = AtomicLong()

    /** The labels of a text, best first; equal scores keep the order of the labels. */
    fun classify(text: String): List<Prediction> {
        val ids = tokenizer.encode(text, manifest.maxLength)
        return predictions(turn.withLock { run(ids) })
    }

    /**
     * The labels of a text, or null if this was called again before the answer was there: what a user types overtakes
     * what they typed before. A waiting call gives up as soon as its turn comes, so the newest text waits for one run
     * at most. Throws [InterruptedException] if its thread is interrupted while it waits.
     */
    fun classifyNewest(text: String): List<Prediction>? {
        val ticket = newest.incrementAndGet()
        val ids = tokenizer.encode(text, manifest.maxLength)
        if (ticket != newest.get()) return null
        turn.lockInterruptibly()
        val logits = try {
            if (ticket == newest.get()) run(ids) else null
        } finally {
            turn.unlock()
        }
        return if (logits == null || ticket != newest.get()) null else predictions(logits)
    }

    /** Makes every [classifyNewest] that is under way give null. */
    fun cancel() {
        newest.incrementAndGet()
    }

    /**
     * Answers the bundle's golden cases: ids must be equal, probabilities within [TOLERANCE]. Gives the largest gap
     * there was. Throws [EngineException] saying what differs. Run it once for each artifact, engine version and device.
     */
    fun selfCheck(): Float = golden.maxOfOrNull(::gap) ?: throw EngineException("the bundle has no golden cases")

    override fun close() = turn.withLock { engine.close() }

    private fun gap(case: GoldenCase): Float {
        val ids = tokenizer.encode(case.text, manifest.maxLength)
        if (!ids.contentEquals(case.ids)) {
            throw EngineException("the tokenizer gives other ids for '${case.text.take(SHOWN)}' than at export")
        }
        val found = probabilities(turn.withLock { run(ids) })
        val expected = probabilities(case.oracle.getValue(artifact.activations))
        val gap = found.indices.maxOf { abs(found[it] - expected[it]) }
        if (gap > TOLERANCE) {
            throw EngineException(
                "${artifact.path} is computed wrongly here: probabilities are off by $gap for '${case.text.take(SHOWN)}'",
            )
        }
        return gap
    }

    /** Pads if the artifact needs it, and runs. */
    private fun run(ids: IntArray): FloatArray {
        val length = if (artifact.anyLength) ids.size else manifest.paddedLength(ids.size)
        val padded = ids.copyOf(length)
        padded.fill(manifest.padId, ids.size)
        val logits = engine.run(padded)
        if (logits.size != manifest.labels.size || logits.any { !it.isFinite() }) {
            throw EngineException("the engine computed ${logits.contentToString()} for ${manifest.labels.size} labels")
        }
        return logits
    }

    private fun predictions(logits: FloatArray): List<Prediction> {
        val scores = probabilities(logits)
        return manifest.labels.indices.sortedByDescending { scores[it] }.map { Prediction(manifest.labels[it], scores[it]) }
    }

    private fun probabilities(logits: FloatArray) = if (manifest.multiLabel) sigmoid(logits) else softmax(logits)

    companion object {
        /** Kernels round differently; on real checkpoints 0.009 was the largest gap, and a wrong kernel moves tenths. */
        const val TOLERANCE = 0.05f
        private const val SHOWN = 40 // characters of a text in a message
    }
}

/** Shifted by the maximum, so that it cannot overflow. */
internal fun softmax(logits: FloatArray): FloatArray {
    val largest = logits.max()
    val powers = FloatArray(logits.size) { exp(logits[it] - largest) }
    val sum = powers.sum()
    return FloatArray(logits.size) { powers[it] / sum }
}

internal fun sigmoid(logits: FloatArray) = FloatArray(logits.size) { 1 / (1 + exp(-logits[it])) }
