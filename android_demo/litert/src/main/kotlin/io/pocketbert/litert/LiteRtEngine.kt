/*
 * Runs model.tflite with LiteRT's CompiledModel on the CPU (XNNPACK).
 *
 * Takes an artifact's file and a folder for its weight cache. Returns an Engine: ids of one of the manifest's lengths in,
 * logits out. Leaves out: GPU and NPU, which need an artifact of their own.
 *
 * LiteRT packs the weights into the layout of its kernels. With a cache file all signatures share one packed copy
 * (DistilBERT-base: 83 MB resident instead of 418) and the next start maps it instead of packing again.
 */
package io.pocketbert.litert

import com.google.ai.edge.litert.Accelerator
import com.google.ai.edge.litert.CompiledModel
import com.google.ai.edge.litert.LiteRtException
import com.google.ai.edge.litert.TensorBuffer
import io.pocketbert.core.Artifact
import io.pocketbert.core.Engine
import io.pocketbert.core.EngineException
import io.pocketbert.core.EngineKind
import io.pocketbert.core.Manifest
import java.io.File

class LiteRtEngine private constructor(private val model: CompiledModel, entries: Map<Int, String>, outputs: List<String>) : Engine {
    private class Signature(val name: String, val input: TensorBuffer, val outputs: Map<String, TensorBuffer>)

    private val signatures = entries.mapValues { (_, name) -> // a signature orders its outputs as it likes, so they go by name
        Signature(name, model.createInputBuffer(INPUT, name), outputs.associateWith { model.createOutputBuffer(it, name) })
    }

    override fun run(inputIds: IntArray): FloatArray {
        val signature = signatures[inputIds.size] ?: throw EngineException("the artifact takes no ${inputIds.size} ids")
        try {
            signature.input.writeInt(inputIds)
            model.run(mapOf(INPUT to signature.input), signature.outputs, signature.name)
            return signature.outputs.values.map { it.readFloat() }.reduce(FloatArray::plus)
        } catch (problem: LiteRtException) {
            throw EngineException("$VERSION failed: ${problem.message}")
        }
    }

    override fun close() {
        signatures.values.forEach { signature -> (signature.outputs.values + signature.input).forEach(TensorBuffer::close) }
        model.close()
    }

    companion object {
        /** What this was built and tested with: part of the keys of the weight cache and of the self-check. */
        const val VERSION = "litert 2.3.2"

        /** LiteRT for an app's list of engines. */
        fun kind(threads: Int, cacheFolder: File) = EngineKind(FORMAT, VERSION) { installed ->
            open(installed.file, installed.bundle.manifest, installed.artifact, threads, cacheFolder)
        }

        /**
         * Opens an artifact. `cacheFolder` is made if it is not there; removing it is safe at any time.
         * Throws [EngineException] saying what LiteRT made of it.
         */
        fun open(file: File, manifest: Manifest, artifact: Artifact, threads: Int, cacheFolder: File): LiteRtEngine = try {
            val entries = manifest.lengths.associateWith { artifact.entry.replace("{length}", "$it") }
            WeightCache(cacheFolder, "${artifact.files[0].sha256.take(KEY_DIGITS)}-${VERSION.replace(' ', '-')}").filling { cache ->
                LiteRtEngine(compile(file, threads, cache), entries, manifest.outputs)
            }
        } catch (problem: LiteRtException) {
            throw EngineException("$VERSION cannot open ${file.name}: ${problem.message}")
        } catch (problem: LinkageError) { // no library for this processor
            throw EngineException("$VERSION has no library for this device: ${problem.message}")
        }

        private const val FORMAT = "tflite"
        private const val INPUT = "input_ids"
        private const val KEY_DIGITS = 16 // of a sha256: enough to tell artifacts apart

        private fun compile(file: File, threads: Int, cache: File?): CompiledModel {
            val options = CompiledModel.Options(Accelerator.CPU)
            options.cpuOptions = CompiledModel.CpuOptions(threads, null, cache?.path)
            return CompiledModel.create(file.path, options)
        }
    }
}
