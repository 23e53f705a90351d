/*
 * The C functions of libLiteRt.so that the classes beside this file call, as litert/c/litert_*.h of LiteRT 2 declare them.
 *
 * The library is the one of the ai-edge-litert wheel, in the folder that the property `pocketbert.natives` names. A handle is a
 * Long; 0 is none. Every function that returns Int returns a status, 0 being right.
 */
package com.google.ai.edge.litert

import com.sun.jna.Memory
import com.sun.jna.Native
import com.sun.jna.NativeLibrary
import com.sun.jna.Pointer
import com.sun.jna.ptr.PointerByReference
import java.io.File

internal object LiteRtLibrary {
    private const val FILE = "libLiteRt.so"

    init {
        val folder = System.getProperty("pocketbert.natives") ?: throw UnsatisfiedLinkError("pocketbert.natives is not set")
        Native.register(LiteRtLibrary::class.java, NativeLibrary.getInstance(File(folder, FILE).path))
    }

    @JvmStatic external fun LiteRtCreateEnvironment(count: Int, options: Pointer?, environment: PointerByReference): Int
    @JvmStatic external fun LiteRtDestroyEnvironment(environment: Pointer)
    @JvmStatic external fun LiteRtCreateModelFromFile(environment: Pointer, file: String, model: PointerByReference): Int
    @JvmStatic external fun LiteRtDestroyModel(model: Pointer)
    @JvmStatic external fun LiteRtGetNumModelSignatures(model: Pointer, count: Memory): Int
    @JvmStatic external fun LiteRtGetModelSignature(model: Pointer, index: Long, signature: PointerByReference): Int
    @JvmStatic external fun LiteRtGetSignatureKey(signature: Pointer, key: PointerByReference): Int
    @JvmStatic external fun LiteRtGetNumSignatureInputs(signature: Pointer, count: Memory): Int
    @JvmStatic external fun LiteRtGetNumSignatureOutputs(signature: Pointer, count: Memory): Int
    @JvmStatic external fun LiteRtGetSignatureInputName(signature: Pointer, index: Long, name: PointerByReference): Int
    @JvmStatic external fun LiteRtGetSignatureOutputName(signature: Pointer, index: Long, name: PointerByReference): Int
    @JvmStatic external fun LiteRtGetSignatureInputTensorByIndex(signature: Pointer, index: Long, tensor: PointerByReference): Int
    @JvmStatic external fun LiteRtGetSignatureOutputTensorByIndex(signature: Pointer, index: Long, tensor: PointerByReference): Int
    @JvmStatic external fun LiteRtGetRankedTensorType(tensor: Pointer, type: Memory): Int
    @JvmStatic external fun LiteRtCreateOptions(options: PointerByReference): Int
    @JvmStatic external fun LiteRtDestroyOptions(options: Pointer)
    @JvmStatic external fun LiteRtSetOptionsHardwareAccelerators(options: Pointer, accelerators: Int): Int
    @JvmStatic external fun LiteRtCreateOpaqueOptions(id: String, payload: Pointer, free: Pointer, options: PointerByReference): Int
    @JvmStatic external fun LiteRtAddOpaqueOptions(options: Pointer, opaque: Pointer): Int
    @JvmStatic external fun LiteRtCreateCompiledModel(environment: Pointer, model: Pointer, options: Pointer, compiled: PointerByReference): Int
    @JvmStatic external fun LiteRtDestroyCompiledModel(compiled: Pointer)
    @JvmStatic external fun LiteRtRunCompiledModel(
        compiled: Pointer, signature: Long, inputs: Long, inputBuffers: Memory, outputs: Long, outputBuffers: Memory,
    ): Int
    @JvmStatic external fun LiteRtGetCompiledModelInputBufferRequirements(
        compiled: Pointer, signature: Long, index: Long, requirements: PointerByReference,
    ): Int
    @JvmStatic external fun LiteRtGetCompiledModelOutputBufferRequirements(
        compiled: Pointer, signature: Long, index: Long, requirements: PointerByReference,
    ): Int
    @JvmStatic external fun LiteRtCreateManagedTensorBufferFromRequirements(
        environment: Pointer, type: Memory, requirements: Pointer, buffer: PointerByReference,
    ): Int
    @JvmStatic external fun LiteRtDestroyTensorBuffer(buffer: Pointer)
    @JvmStatic external fun LiteRtLockTensorBuffer(buffer: Pointer, memory: PointerByReference, mode: Int): Int
    @JvmStatic external fun LiteRtUnlockTensorBuffer(buffer: Pointer): Int
}

/** Throws what the Android class throws. */
internal fun check(status: Int, doing: String) {
    if (status != 0) throw Status.fromCode(status).let { LiteRtException(it, "$doing: $it ($status)") }
}

/** The handle that a function writes. */
internal inline fun created(doing: String, create: (PointerByReference) -> Int): Pointer {
    val handle = PointerByReference()
    check(create(handle), doing)
    return handle.value
}

/** The count that a function writes. */
internal inline fun counted(count: (Memory) -> Int): Int = Memory(Long.SIZE_BYTES.toLong()).use { memory ->
    check(count(memory), "counting")
    memory.getLong(0).toInt()
}
