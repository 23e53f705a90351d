/*
 * What the core asks of an engine: ids in, logits out. Adapters for ExecuTorch and LiteRT implement it in an app.
 */
package io.pocketbert.core

/** Runs one artifact. Calls come one at a time, from any thread. */
interface Engine : AutoCloseable {
    /** The logits, one for each label, of ids that are padded already: as many as the artifact's `entry` takes. */
    fun run(inputIds: IntArray): FloatArray

    /** Releases what it holds. */
    override fun close() {}
}

/** An engine that computes something else than the bundle was exported with, or nothing at all. */
class EngineException(message: String) : Exception(message)
