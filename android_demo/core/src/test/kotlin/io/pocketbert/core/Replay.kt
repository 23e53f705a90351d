/*
 * Replays the contract: texts with the ids that Hugging Face's tokenizers gave them.
 *
 * Takes a tokenizer.safetensors by name, and cases on standard input as tests/tokenizer_cases.py writes them. Prints
 * one line of JSON, and up to SHOWN mismatches before it. Ends with status 1 if there was any.
 *
 * A case, all numbers big-endian int32: maxLength or -1; UTF-16 units of the text, counted; units of the second text,
 * counted, or -1 without one; ids, counted.
 */
package io.pocketbert.core

import java.io.DataInputStream
import java.io.EOFException
import java.io.File
import java.io.InputStream
import kotlin.system.exitProcess

private const val SHOWN = 10
private const val BUFFER = 1 shl 20

internal class Case(val text: String, val second: String?, val maxLength: Int, val ids: IntArray) {
    fun encode(tokenizer: Tokenizer): IntArray =
        if (second == null) tokenizer.encode(text, maxLength) else tokenizer.encode(text, second, maxLength)
}

/** The cases of a stream, one by one. */
internal fun readCases(stream: InputStream): Sequence<Case> = sequence {
    val input = DataInputStream(stream.buffered(BUFFER))
    while (true) {
        val maxLength = try {
            input.readInt()
        } catch (_: EOFException) {
            break
        }
        val text = units(input, input.readInt())
        val count = input.readInt()
        val second = if (count < 0) null else units(input, count)
        val ids = IntArray(input.readInt()) { input.readInt() }
        yield(Case(text, second, if (maxLength < 0) Int.MAX_VALUE else maxLength, ids))
    }
}

private fun units(input: DataInputStream, count: Int): String {
    val bytes = ByteArray(2 * count).also(input::readFully)
    return String(CharArray(count) { (bytes[2 * it].toInt() and 0xFF shl 8 or (bytes[2 * it + 1].toInt() and 0xFF)).toChar() })
}

private fun shown(text: String) = text.take(60).map { if (it in ' '..'~') it.toString() else "\\u%04x".format(it.code) }.joinToString("")

fun main(arguments: Array<String>) {
    val tokenizer = Tokenizer.read(File(arguments[0]).readBytes())
    var strings = 0
    var mismatches = 0
    var nanoseconds = 0L
    for (case in readCases(System.`in`)) {
        val start = System.nanoTime()
        val ids = case.encode(tokenizer)
        nanoseconds += System.nanoTime() - start
        strings++
        if (ids.contentEquals(case.ids)) continue
        if (mismatches++ < SHOWN) {
            println("\"${shown(case.text)}\" second ${case.second?.let(::shown)} maxLength ${case.maxLength}")
            println("  expected ${case.ids.take(SHOWN * 2)}\n  found    ${ids.take(SHOWN * 2)}")
        }
    }
    println("""{"strings": $strings, "mismatches": $mismatches, "seconds": ${nanoseconds / 1e9}}""")
    if (mismatches > 0) exitProcess(1)
}
