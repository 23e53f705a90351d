/*
 * Replays the contract: texts with the ids that Hugging Face's tokenizers gave them.
 *
 * Takes files tokenizer.safetensors by name, and cases on standard input as tests/tokenizer_cases.py writes them.
 * Prints up to SHOWN mismatches of each tokenizer, then a line of JSON for each.
 *
 * A case, all numbers big-endian int32: which tokenizer; maxLength or -1; UTF-16 units of the text, counted; units of
 * the second text, counted, or -1 without one; ids, counted.
 */
package io.pocketbert.core

import java.io.DataInputStream
import java.io.EOFException
import java.io.File

private const val SHOWN = 10
private const val SHOWN_IDS = 20
private const val SHOWN_TEXT = 60
private const val BUFFER = 1 shl 20

private class Case(input: DataInputStream) {
    val maxLength = input.readInt().let { if (it < 0) Int.MAX_VALUE else it }
    val text = units(input)!!
    val second = units(input)
    val ids = IntArray(input.readInt()) { input.readInt() }

    fun encode(tokenizer: Tokenizer): IntArray =
        if (second == null) tokenizer.encode(text, maxLength) else tokenizer.encode(text, second, maxLength)

    override fun toString() = "\"${shown(text)}\" second ${second?.let(::shown)} maxLength $maxLength"

    private fun shown(text: String) =
        text.take(SHOWN_TEXT).map { if (it in ' '..'~') it.toString() else "\\u%04x".format(it.code) }.joinToString("")

    private fun units(input: DataInputStream): String? {
        val count = input.readInt()
        if (count < 0) return null
        val bytes = ByteArray(2 * count).also(input::readFully)
        val unit = { i: Int -> (bytes[2 * i].toInt() and 0xFF shl 8 or (bytes[2 * i + 1].toInt() and 0xFF)).toChar() }
        return String(CharArray(count, unit))
    }
}

/** A tokenizer under test and what was found. */
private class Trial(file: String) {
    private val tokenizer = Tokenizer.read(File(file).readBytes())
    private var strings = 0
    private var mismatches = 0
    private var nanoseconds = 0L

    fun compare(case: Case) {
        val start = System.nanoTime()
        val ids = case.encode(tokenizer)
        nanoseconds += System.nanoTime() - start
        strings++
        if (ids.contentEquals(case.ids) || mismatches++ >= SHOWN) return
        println("$case\n  expected ${case.ids.take(SHOWN_IDS)}\n  found    ${ids.take(SHOWN_IDS)}")
    }

    fun outcome() = """{"strings": $strings, "mismatches": $mismatches, "seconds": ${nanoseconds / 1e9}}"""
}

fun main(files: Array<String>) {
    val trials = files.map(::Trial)
    val input = DataInputStream(System.`in`.buffered(BUFFER))
    while (true) {
        val number = try {
            input.readInt()
        } catch (_: EOFException) {
            break
        }
        trials[number].compare(Case(input))
    }
    trials.forEach { println(it.outcome()) }
}
