/* The C functions of libexecutorch_host.so (host/src/main/cpp), in the folder that the property `pocketbert.natives` names. */
package org.pytorch.executorch

import com.sun.jna.Memory
import com.sun.jna.Native
import com.sun.jna.NativeLibrary
import com.sun.jna.Pointer
import com.sun.jna.ptr.PointerByReference
import java.io.File

internal object ExecuTorchLibrary {
    private const val FILE = "libexecutorch_host.so"

    init {
        val folder = System.getProperty("pocketbert.natives") ?: throw UnsatisfiedLinkError("pocketbert.natives is not set")
        // The runtime is a Python module that looks for Python's own symbols in the whole process, so load it globally.
        val options = mapOf(com.sun.jna.Library.OPTION_OPEN_FLAGS to RTLD_LAZY_GLOBAL)
        Native.register(ExecuTorchLibrary::class.java, NativeLibrary.getInstance(File(folder, FILE).path, options))
    }

    private const val RTLD_LAZY_GLOBAL = 0x101 // dlfcn.h

    @JvmStatic external fun host_open(path: String, threads: Int, module: PointerByReference): Int
    @JvmStatic external fun host_load_method(module: Pointer, name: String): Int
    @JvmStatic external fun host_execute(
        module: Pointer, name: String, data: IntArray, sizes: IntArray, rank: Int, output: Memory, capacity: Int, counts: IntArray, outputs: Int,
    ): Int
    @JvmStatic external fun host_close(module: Pointer)
}
