/*
 * A safetensors file: named arrays and a text of metadata.
 *
 * Takes its bytes: uint64 size of a JSON header, the header, the data; all little-endian
 * (https://github.com/huggingface/safetensors#format). Returns arrays of the types that the tokenizer's tables use.
 * Leaves out: other types, shapes (each array has one dimension or is read as if it had).
 */
package io.pocketbert.core

import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.ByteOrder

internal class TensorFile(content: ByteArray) {
    private val header: Map<*, *>
    private val data: ByteBuffer

    init {
        val buffer = ByteBuffer.wrap(content).order(ByteOrder.LITTLE_ENDIAN)
        val size = if (content.size < Long.SIZE_BYTES) -1 else buffer.getLong(0)
        if (size < 0 || size > content.size - Long.SIZE_BYTES) throw BundleException("not a safetensors file")
        header = parseJson(String(content, Long.SIZE_BYTES, size.toInt(), Charsets.UTF_8)) as? Map<*, *>
            ?: throw BundleException("not a safetensors file")
        data = slice(buffer, Long.SIZE_BYTES + size.toInt(), content.size)
    }

    fun metadata(name: String): String = Fields(header["__metadata__"], "metadata").text(name)

    /** Unsigned 16-bit numbers; a JVM's only unsigned type is the character. */
    fun chars(name: String): CharArray = bytes(name, "U16").asCharBuffer().run { CharArray(remaining()).also { get(it) } }

    fun ints(name: String): IntArray = bytes(name, "I32").asIntBuffer().run { IntArray(remaining()).also { get(it) } }

    fun doubles(name: String): DoubleArray = bytes(name, "F64").asDoubleBuffer().run { DoubleArray(remaining()).also { get(it) } }

    private fun bytes(name: String, type: String): ByteBuffer {
        val tensor = Fields(header[name] ?: throw BundleException("has no array '$name'"), name)
        val (start, end) = tensor.ints("data_offsets").let { if (it.size == 2) it[0] to it[1] else -1 to -1 }
        if (tensor.text("dtype") != type) throw BundleException("array '$name' is ${tensor.text("dtype")}, not $type")
        if (start < 0 || end < start || end > data.limit()) throw BundleException("array '$name' is cut off")
        return slice(data, start, end)
    }

    private fun slice(buffer: ByteBuffer, start: Int, end: Int): ByteBuffer {
        val part: Buffer = buffer.duplicate() // old Androids lack ByteBuffer's own limit and position
        part.limit(end)
        part.position(start)
        return (part as ByteBuffer).slice().order(ByteOrder.LITTLE_ENDIAN)
    }
}
