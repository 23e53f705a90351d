/*
 * What all tasks share: a bundle opened with one engine, and ids run through it.
 *
 * Takes an opened bundle and an engine for one of its artifacts. Returns logits by rows of `columns`: one row, or one for each id.
 * Leaves out: what they mean (TextClassifier, TokenClassifier, QuestionAnswerer), and threads: it blocks until it has an answer.
 */
package io.pocketbert.core

import java.util.concurrent.atomic.AtomicLong
import java.util.concurrent.locks.ReentrantLock
import kotlin.concurrent.withLock
import kotlin.math.abs

/** A bundle opened with one engine for its task; safe to share between threads, which take turns at the engine. */
interface OpenedBundle : AutoCloseable {
    /**
     * Answers the bundle's golden cases: ids must be equal, probabilities within its tolerance. Returns the largest gap
     * there was. Throws [EngineException] saying what differs. [SelfChecks] runs it once and keeps the outcome.
     */
    fun selfCheck(): Float
}

internal class Runner(private val bundle: Bundle, private val artifact: Artifact, private val engine: Engine, task: Task) : OpenedBundle {
    val manifest = bundle.manifest
    val tokenizer = bundle.tokenizer()
    private val turn = ReentrantLock() // engines run one text at a time
    private val newest = AtomicLong()

    init {
        if (manifest.task != task) throw BundleException("the bundle is for ${manifest.task.id}: open it with ${manifest.task.opener}")
    }

    /** The ids of one text, or of two where the bundle takes two. */
    fun encode(text: String, second: String?): IntArray {
        if (second == null) return tokenizer.encode(text, manifest.maxLength)
        if (!manifest.pairs) throw BundleException("the bundle takes one text at a time: export its checkpoint with --pairs")
        return tokenizer.encode(text, second, manifest.maxLength)
    }

    /** The logits of ids, when it is their turn. */
    fun run(ids: IntArray): FloatArray = turn.withLock { compute(ids) }

    /** The logits of ids that are made first, or null if this was called again before they were there: see [TextClassifier.classifyNewest]. */
    fun runNewest(encode: () -> IntArray): FloatArray? {
        val ticket = newest.incrementAndGet()
        val ids = encode()
        if (ticket != newest.get()) return null
        turn.lockInterruptibly()
        val logits = try {
            if (ticket == newest.get()) compute(ids) else null
        } finally {
            turn.unlock()
        }
        return if (ticket == newest.get()) logits else null
    }

    /** Makes every [runNewest] that is under way give null. */
    fun cancel() {
        newest.incrementAndGet()
    }

    /** Logits -> the same rows: of labels, or of a question's answer by start and by end over all ids. */
    fun probabilities(logits: FloatArray): FloatArray = when (manifest.task) {
        Task.SEQUENCE_CLASSIFICATION -> if (manifest.multiLabel) sigmoid(logits) else softmax(logits)
        Task.TOKEN_CLASSIFICATION -> softmax(logits, logits.size / manifest.columns, manifest.columns, 1)
        Task.QUESTION_ANSWERING -> softmax(logits, manifest.columns, 1, manifest.columns)
    }

    override fun selfCheck(): Float {
        val golden = bundle.golden()
        return golden.cases.maxOfOrNull { gap(it, golden.tolerance) } ?: throw EngineException("the bundle has no golden cases")
    }

    override fun close() = turn.withLock { engine.close() }

    private fun gap(case: GoldenCase, tolerance: Float): Float {
        val ids = encode(case.text, case.textPair)
        if (!ids.contentEquals(case.ids)) {
            throw EngineException("the tokenizer gives other ids for '${case.text.take(SHOWN)}' than at export")
        }
        val found = probabilities(run(ids))
        val expected = probabilities(case.oracle.getValue(artifact.activations))
        val gap = found.indices.maxOf { abs(found[it] - expected[it]) }
        if (!(gap <= tolerance)) {
            throw EngineException(
                "${artifact.path} is computed wrongly here: probabilities are off by $gap for '${case.text.take(SHOWN)}'",
            )
        }
        return gap
    }

    /** Pads if the artifact needs it, runs, and leaves out what stands behind the ids. */
    private fun compute(ids: IntArray): FloatArray {
        val length = if (artifact.anyLength) ids.size else manifest.paddedLength(ids.size)
        val padded = ids.copyOf(length)
        padded.fill(manifest.padId, ids.size)
        val logits = engine.run(padded)
        val count = manifest.columns * manifest.rows(length)
        if (logits.size != count) throw EngineException("the engine computed ${logits.size} numbers, not $count")
        val kept = when (manifest.task) {
            Task.SEQUENCE_CLASSIFICATION -> logits
            Task.TOKEN_CLASSIFICATION -> logits.copyOf(ids.size * manifest.columns)
            Task.QUESTION_ANSWERING -> FloatArray(2 * ids.size) { logits[it % 2 * length + it / 2] }
        }
        kept.find { !it.isFinite() }?.let { throw EngineException("the engine computed $it, which is no logit") }
        return kept
    }

    private companion object {
        const val SHOWN = 40 // characters of a text in a message
    }
}
