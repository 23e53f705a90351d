/*
 * org.pytorch.executorch for a plain JVM: the classes that an app calls to run a program, over the real ExecuTorch runtime.
 *
 * Names and signatures are those of org.pytorch:executorch-android 1.4.1 (extension/android in ExecuTorch's repository), so that
 * code compiled against these runs with the Android library. Leaves out: inputs that are not one int32 tensor, outputs that are not
 * float32 tensors, load modes (the file is always read into memory).
 */
package org.pytorch.executorch

import com.sun.jna.Memory
import com.sun.jna.Pointer
import com.sun.jna.ptr.PointerByReference
import java.io.Closeable
import java.io.File
import java.util.concurrent.locks.ReentrantLock
import kotlin.concurrent.withLock
import org.pytorch.executorch.ExecuTorchLibrary as C

open class ExecutorchRuntimeException(val errorCode: Int, details: String?) :
    RuntimeException("[ExecuTorch Error 0x${Integer.toHexString(errorCode)}] $details")

open class Module private constructor(path: String, threads: Int) : Closeable {
    private var handle: Pointer? = PointerByReference().also { check(C.host_open(path, threads, it), "loading $path") }.value
    private val lock = ReentrantLock()
    private val output = Memory(CAPACITY.toLong() * Float.SIZE_BYTES)

    open fun forward(vararg inputs: EValue): Array<EValue> = execute("forward", *inputs)

    open fun execute(methodName: String, vararg inputs: EValue): Array<EValue> = lock.withLock {
        val input = inputs.single().toTensor()
        val counts = IntArray(OUTPUTS)
        val sizes = input.shape().map { it.toInt() }.toIntArray()
        val data = input.dataAsIntArray
        check(C.host_execute(alive(), methodName, data, sizes, sizes.size, output, CAPACITY, counts, OUTPUTS), "executing $methodName")
        val ends = counts.takeWhile { it > 0 }.runningReduce(Int::plus)
        Array(ends.size) { EValue.from(FloatTensor(output.getFloatArray((ends[it] - counts[it]).toLong() * Float.SIZE_BYTES, counts[it]))) }
    }

    open fun loadMethod(methodName: String): Unit = lock.withLock {
        check(C.host_load_method(alive(), methodName), "Failed to load method: $methodName")
    }

    open fun destroy() {
        check(lock.tryLock()) { "Cannot destroy module while method is executing" }
        try {
            handle?.let(C::host_close)
            handle = null
        } finally {
            lock.unlock()
        }
    }

    override fun close() = destroy()

    private fun alive() = checkNotNull(handle) { "Module has been destroyed" }

    private fun check(error: Int, doing: String) {
        if (error != 0) throw ExecutorchRuntimeException(error, doing)
    }

    companion object {
        const val LOAD_MODE_FILE = 0
        private const val CAPACITY = 1 shl 18 // numbers: of 512 tokens each of 512 labels
        private const val OUTPUTS = 8 // of a method; no head has more than two

        @JvmStatic
        @JvmOverloads
        fun load(modelPath: String?, loadMode: Int = LOAD_MODE_FILE, numThreads: Int = 0): Module {
            require(modelPath != null && File(modelPath).canRead()) { "Cannot load model path: path does not exist: $modelPath" }
            require(loadMode == LOAD_MODE_FILE) { "only LOAD_MODE_FILE on a host" }
            return Module(modelPath, numThreads)
        }
    }
}

class EValue private constructor(private val tensor: Tensor) {
    fun toTensor(): Tensor = tensor

    companion object {
        @JvmStatic fun from(tensor: Tensor): EValue = EValue(tensor)
    }
}

abstract class Tensor internal constructor(private val shape: LongArray) {
    fun shape(): LongArray = shape.copyOf()

    open val dataAsIntArray: IntArray get() = throw IllegalStateException("not an int32 tensor")

    open val dataAsFloatArray: FloatArray get() = throw IllegalStateException("not a float32 tensor")

    companion object {
        @JvmStatic
        fun fromBlob(data: IntArray, shape: LongArray): Tensor {
            require(shape.fold(1L, Long::times) == data.size.toLong()) { "Inconsistent data capacity ${data.size} and shape" }
            return IntTensor(data.copyOf(), shape)
        }
    }
}

internal class IntTensor(private val data: IntArray, shape: LongArray) : Tensor(shape) {
    override val dataAsIntArray get() = data.copyOf()
}

internal class FloatTensor(private val data: FloatArray) : Tensor(longArrayOf(1, data.size.toLong())) {
    override val dataAsFloatArray get() = data.copyOf()
}
