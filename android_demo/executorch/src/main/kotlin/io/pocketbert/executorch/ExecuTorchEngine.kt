/*
 * Runs model.pte with ExecuTorch (XNNPACK).
 *
 * Takes an artifact's file. Returns an Engine: ids of any length up to the manifest's in, logits out.
 * Leaves out: other backends, which need an artifact of their own.
 */
package io.pocketbert.executorch

import io.pocketbert.core.Artifact
import io.pocketbert.core.Engine
import io.pocketbert.core.EngineException
import io.pocketbert.core.EngineKind
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor
import java.io.File
import java.util.concurrent.atomic.AtomicInteger

class ExecuTorchEngine private constructor(private val module: Module, private val method: String) : Engine {
    override fun run(inputIds: IntArray): FloatArray = try {
        val input = Tensor.fromBlob(inputIds, longArrayOf(1, inputIds.size.toLong()))
        val outputs = module.execute(method, EValue.from(input))
        outputs.map { it.toTensor().dataAsFloatArray }.reduce(FloatArray::plus) // copies: the next run reuses the memory
    } catch (problem: RuntimeException) {
        throw EngineException("$VERSION failed: ${problem.message}")
    }

    override fun close() = module.close()

    companion object {
        /** What this was built and tested with: part of the key of the self-check. */
        const val VERSION = "executorch 1.4.1"

        /** ExecuTorch for an app's list of engines. */
        fun kind(threads: Int) = EngineKind(FORMAT, VERSION) { installed -> open(installed.file, installed.artifact, threads) }

        private const val FORMAT = "executorch"
        private val poolThreads = AtomicInteger() // 0 until the first program is loaded

        /**
         * Opens an artifact. All engines of a process share one pool of threads, so `threads` must be the same for all: another
         * number would free the pool that opened programs go on using. Throws [EngineException] saying what ExecuTorch made of it.
         */
        fun open(file: File, artifact: Artifact, threads: Int): ExecuTorchEngine = try {
            require(threads > 0) { "$threads threads" }
            if (!poolThreads.compareAndSet(0, threads) && poolThreads.get() != threads) {
                throw EngineException("$VERSION runs with ${poolThreads.get()} threads already, and cannot with $threads too")
            }
            // Read, not mapped: the weights are packed anew in memory anyway, and a mapped file that vanishes kills the app.
            val module = Module.load(file.path, Module.LOAD_MODE_FILE, threads)
            module.loadMethod(artifact.entry)
            ExecuTorchEngine(module, artifact.entry)
        } catch (problem: RuntimeException) { // ExecutorchRuntimeException, and what its native code throws
            throw EngineException("$VERSION cannot open ${file.name}: ${problem.message}")
        } catch (problem: LinkageError) { // no library for this processor
            throw EngineException("$VERSION has no library for this device: ${problem.message}")
        }
    }
}
