/*
 * com.google.ai.edge.litert for a plain JVM: the classes that an app calls to run a model on the CPU, over the real libLiteRt.so.
 *
 * Names and signatures are those of LiteRT's Kotlin API (litert/kotlin in its repository), so that code compiled against these
 * runs with the Android library. Leaves out: assets, other accelerators than the CPU, types other than int32 and float32.
 */
package com.google.ai.edge.litert

import com.google.ai.edge.litert.LiteRtLibrary as C
import com.sun.jna.Memory
import com.sun.jna.Native
import com.sun.jna.NativeLibrary
import com.sun.jna.Pointer
import java.util.concurrent.atomic.AtomicBoolean

enum class Accelerator(val value: Int) { NONE(0), CPU(1), GPU(2), NPU(3) }

class LiteRtException(private val status: Status, message: String) : Exception(message)

enum class Status(val code: Int) {
    Ok(0), ErrorInvalidArgument(1), ErrorMemoryAllocationFailure(2), ErrorRuntimeFailure(3), ErrorMissingInputTensor(4),
    ErrorUnsupported(5), ErrorNotFound(6), ErrorTimeoutExpired(7), ErrorWrongVersion(8), ErrorUnknown(9), ErrorFileIO(500),
    ErrorInvalidFlatbuffer(501), ErrorDynamicLoading(502), ErrorSerialization(503), ErrorCompilation(504);

    companion object {
        fun fromCode(code: Int): Status = entries.find { it.code == code } ?: ErrorUnknown
    }
}

abstract class JniHandle internal constructor(internal val handle: Long) : AutoCloseable {
    private val destroyed = AtomicBoolean(false)

    protected fun assertNotDestroyed() = check(!destroyed.get()) { "The handle has been destroyed." }

    protected abstract fun destroy()

    final override fun close() {
        if (destroyed.compareAndSet(false, true)) destroy()
    }
}

class Environment private constructor(handle: Long) : JniHandle(handle) {
    override fun destroy() = C.LiteRtDestroyEnvironment(Pointer(handle))

    enum class Option(val value: Int) { CompilerPluginLibraryDir(0), DispatchLibraryDir(1) }

    companion object {
        @JvmOverloads
        @JvmStatic
        fun create(options: Map<Option, String> = mapOf()): Environment {
            require(options.isEmpty()) { "no options on a host" }
            return Environment(Pointer.nativeValue(created("environment") { C.LiteRtCreateEnvironment(0, null, it) }))
        }
    }
}

private const val TYPE_BYTES = 72L // sizeof(LiteRtRankedTensorType): element type, rank and a flag, 8 dimensions, 8 strides
private const val RANK_AT = 4L
private const val RANK_BITS = 0x7F
private const val DIMENSIONS_AT = 8L
private const val LOCK_TO_READ = 0
private const val LOCK_TO_WRITE = 1

class TensorBuffer private constructor(handle: Long, private val elements: Int) : JniHandle(handle) {
    fun writeInt(data: IntArray) = locked(LOCK_TO_WRITE) { memory ->
        if (data.size > elements) throw LiteRtException(Status.ErrorRuntimeFailure, "${data.size} numbers for $elements")
        memory.write(0, data, 0, data.size)
    }

    fun readFloat(): FloatArray = locked(LOCK_TO_READ) { memory -> memory.getFloatArray(0, elements) }

    override fun destroy() = C.LiteRtDestroyTensorBuffer(Pointer(handle))

    private fun <T> locked(mode: Int, use: (Pointer) -> T): T {
        assertNotDestroyed()
        val memory = created("lock") { C.LiteRtLockTensorBuffer(Pointer(handle), it, mode) }
        try {
            return use(memory)
        } finally {
            check(C.LiteRtUnlockTensorBuffer(Pointer(handle)), "unlock")
        }
    }

    companion object {
        internal fun of(handle: Pointer, elements: Int) = TensorBuffer(Pointer.nativeValue(handle), elements)
    }
}

class CompiledModel private constructor(
    handle: Long,
    private val env: Environment,
    private val envManaged: Boolean,
    private val model: Pointer,
) : JniHandle(handle) {
    private val signatures = List(counted { C.LiteRtGetNumModelSignatures(model, it) }) { index ->
        created("signature") { C.LiteRtGetModelSignature(model, index.toLong(), it) }
    }
    private val names = signatures.map { signature -> created("name") { C.LiteRtGetSignatureKey(signature, it) }.getString(0) }

    data class CpuOptions(
        val numThreads: Int? = null,
        val xnnPackFlags: Int? = null,
        val xnnPackWeightCachePath: String? = null,
    ) {
        /** The TOML text that the C API takes (litert/c/options/litert_cpu_options.cc). */
        internal fun toml() = listOfNotNull(
            numThreads?.let { "num_threads = $it" },
            xnnPackFlags?.let { "flags = $it" },
            xnnPackWeightCachePath?.let { "weight_cache_file_path = \"$it\"" },
        ).joinToString("") { "$it\n" }
    }

    class Options(internal val accelerators: Set<Accelerator>) {
        constructor(vararg accelerators: Accelerator) : this(setOf(*accelerators))

        var cpuOptions: CpuOptions? = null

        companion object {
            @JvmStatic val CPU = Options(Accelerator.CPU)
        }
    }

    fun createInputBuffer(inputName: String, signature: String): TensorBuffer {
        assertNotDestroyed()
        val index = index(signature)
        val i = inputs(index).indexOf(inputName).also { found(it, inputName) }.toLong()
        val needs = created("input") { C.LiteRtGetCompiledModelInputBufferRequirements(Pointer(handle), index.toLong(), i, it) }
        return buffer(created("input") { C.LiteRtGetSignatureInputTensorByIndex(signatures[index], i, it) }, needs)
    }

    fun createOutputBuffer(outputName: String, signature: String): TensorBuffer {
        assertNotDestroyed()
        val index = index(signature)
        val i = outputs(index).indexOf(outputName).also { found(it, outputName) }.toLong()
        val needs = created("output") { C.LiteRtGetCompiledModelOutputBufferRequirements(Pointer(handle), index.toLong(), i, it) }
        return buffer(created("output") { C.LiteRtGetSignatureOutputTensorByIndex(signatures[index], i, it) }, needs)
    }

    fun run(inputs: Map<String, TensorBuffer>, outputs: Map<String, TensorBuffer>, signature: String) {
        assertNotDestroyed()
        val index = index(signature)
        val given = inputs(index).map(inputs::getValue)
        val taken = outputs(index).map(outputs::getValue)
        val (from, to) = given.size.toLong() to taken.size.toLong()
        check(C.LiteRtRunCompiledModel(Pointer(handle), index.toLong(), from, handles(given), to, handles(taken)), "run")
    }

    override fun destroy() {
        C.LiteRtDestroyCompiledModel(Pointer(handle))
        C.LiteRtDestroyModel(model)
        if (envManaged) env.close()
    }

    private fun index(signature: String): Int = names.indexOf(signature).also {
        if (it < 0) throw LiteRtException(Status.ErrorNotFound, "no signature $signature: there are $names")
    }

    private fun inputs(index: Int) = List(counted { C.LiteRtGetNumSignatureInputs(signatures[index], it) }) { i ->
        created("name") { C.LiteRtGetSignatureInputName(signatures[index], i.toLong(), it) }.getString(0)
    }

    private fun outputs(index: Int) = List(counted { C.LiteRtGetNumSignatureOutputs(signatures[index], it) }) { i ->
        created("name") { C.LiteRtGetSignatureOutputName(signatures[index], i.toLong(), it) }.getString(0)
    }

    private fun found(index: Int, name: String) {
        if (index < 0) throw LiteRtException(Status.ErrorNotFound, "no input or output $name")
    }

    private fun buffer(tensor: Pointer, needs: Pointer): TensorBuffer = Memory(TYPE_BYTES).use { type ->
        check(C.LiteRtGetRankedTensorType(tensor, type), "type")
        val handle = created("buffer") { C.LiteRtCreateManagedTensorBufferFromRequirements(Pointer(env.handle), type, needs, it) }
        val shape = type.getIntArray(DIMENSIONS_AT, type.getInt(RANK_AT) and RANK_BITS)
        TensorBuffer.of(handle, shape.fold(1, Int::times))
    }

    private fun handles(buffers: List<TensorBuffer>) = Memory(buffers.size.toLong() * Long.SIZE_BYTES).also { memory ->
        buffers.forEachIndexed { i, buffer -> memory.setLong(i.toLong() * Long.SIZE_BYTES, buffer.handle) }
    }

    companion object {
        private val free = NativeLibrary.getProcess().getFunction("free")

        @JvmOverloads
        @JvmStatic
        fun create(filePath: String, options: Options = Options.CPU, optionalEnv: Environment? = null): CompiledModel {
            val env = optionalEnv ?: Environment.create()
            val model = created("opening $filePath") { C.LiteRtCreateModelFromFile(Pointer(env.handle), filePath, it) }
            val settings = settings(options)
            try {
                val handle = created("compiling $filePath") { C.LiteRtCreateCompiledModel(Pointer(env.handle), model, settings, it) }
                return CompiledModel(Pointer.nativeValue(handle), env, optionalEnv == null, model)
            } finally {
                C.LiteRtDestroyOptions(settings)
            }
        }

        private fun settings(options: Options): Pointer {
            val settings = created("options", C::LiteRtCreateOptions)
            check(C.LiteRtSetOptionsHardwareAccelerators(settings, options.accelerators.sumOf { it.value }), "accelerators")
            options.cpuOptions?.let { cpu ->
                val text = cpu.toml().encodeToByteArray()
                val payload = Pointer(Native.malloc(text.size + 1L)) // the library frees it
                payload.write(0, text, 0, text.size)
                payload.setByte(text.size.toLong(), 0)
                val opaque = created("CPU options") { C.LiteRtCreateOpaqueOptions("xnnpack", payload, free, it) }
                check(C.LiteRtAddOpaqueOptions(settings, opaque), "CPU options")
            }
            return settings
        }
    }
}
