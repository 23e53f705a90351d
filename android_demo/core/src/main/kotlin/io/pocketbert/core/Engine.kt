/*
 * What the core asks of an engine: ids in, logits out. Adapters for ExecuTorch and LiteRT implement it in an app.
 */
package io.pocketbert.core

/** Runs one artifact. Calls come one at a time, from any thread. */
fun interface Engine : AutoCloseable {
    /**
     * The logits of ids that are padded already: as many as the artifact's `entry` takes. Each output as it lies in memory, last
     * axis first; where the manifest has two, the second behind the first.
     */
    fun run(inputIds: IntArray): FloatArray

    /** Releases what it holds. */
    override fun close() {}
}

/**
 * One way to run artifacts of a format: what an app's list of engines is made of. `version` says which engine in which version;
 * `open` throws [EngineException].
 */
class EngineKind(val format: String, val version: String, val open: (InstalledBundle) -> Engine)

/** An engine that computes something else than the bundle was exported with, or nothing at all. */
class EngineException(message: String) : Exception(message)
