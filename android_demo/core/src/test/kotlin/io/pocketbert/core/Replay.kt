/*
 * Replays the contract: texts with the tokens that Hugging Face's tokenizers gave them, and where these stand.
 *
 * Takes files tokenizer.safetensors by name, and cases on standard input as tests/tokenizer_cases.py writes them.
 * Prints up to SHOWN mismatches of each tokenizer, then a line of JSON for each. A case that the tokenizer throws at is a mismatch.
 *
 * A case, all numbers big-endian int32: which tokenizer; maxLength or -1; stride or -1; UTF-16 units of the text, counted;
 * units of the second text, counted, or -1 without one; encodings, counted: more than one are windows. An encoding: how many
 * tokens; their ids, starts and ends in code points, words, texts of the pair, lengths of pieces (-1 where nobody asks).
 */
package io.pocketbert.core

import java.io.DataInputStream
import java.io.EOFException
import java.io.File

private const val SHOWN = 10
private const val SHOWN_IDS = 20
private const val SHOWN_TEXT = 60
private const val BUFFER = 1 shl 20

/** What an encoding must be, as rows of numbers: ids first. */
private class Expected(input: DataInputStream) {
    val rows = input.readInt().let { size -> List(ROWS.size) { IntArray(size) { input.readInt() } } }

    /** The name of the first row that differs, or null. */
    fun difference(found: Encoding, case: Case): String? {
        val (starts, ends) = case.inCodePoints(found, found.starts) to case.inCodePoints(found, found.ends)
        val lengths = IntArray(found.size) { if (rows.last().getOrNull(it) == Encoding.NONE) Encoding.NONE else found.lengths[it] }
        val all = listOf(found.ids, starts, ends, found.words, found.sequences, lengths)
        val row = rows.indices.firstOrNull { !rows[it].contentEquals(all[it]) } ?: return null
        return "${ROWS[row]}\n  expected ${rows[row].take(SHOWN_IDS)}\n  found    ${all[row].take(SHOWN_IDS)}"
    }

    private companion object {
        val ROWS = listOf("ids", "starts", "ends", "words", "texts", "lengths")
    }
}

private class Case(input: DataInputStream) {
    val maxLength = input.readInt().let { if (it < 0) Int.MAX_VALUE else it }
    val stride = input.readInt()
    val text = units(input)!!
    val second = units(input)
    val encodings = List(input.readInt()) { Expected(input) }
    private val points = listOfNotNull(text, second).map(::codePointsBefore)

    fun encode(tokenizer: Tokenizer): IntArray =
        if (second == null) tokenizer.encode(text, maxLength) else tokenizer.encode(text, second, maxLength)

    fun align(tokenizer: Tokenizer): List<Encoding> = when {
        second == null -> listOf(tokenizer.align(text, maxLength))
        stride < 0 -> listOf(tokenizer.align(text, second, maxLength))
        else -> tokenizer.windows(text, second, maxLength, stride)
    }

    fun inCodePoints(encoding: Encoding, offsets: IntArray) =
        IntArray(offsets.size) { points[maxOf(encoding.sequences[it], 0)][offsets[it]] }

    private fun codePointsBefore(text: String): IntArray {
        val counts = IntArray(text.length + 1)
        for (i in text.indices) counts[i + 1] = counts[i] + if (text[i].isLowSurrogate() && i > 0 && text[i - 1].isHighSurrogate()) 0 else 1
        return counts
    }

    override fun toString() = "\"${shown(text)}\" second ${second?.let(::shown)} maxLength $maxLength stride $stride"

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
    private var tokens = 0L
    private var mismatches = 0 // other ids, or none: it threw
    private var misplaced = 0 // the same ids, elsewhere
    private var nanoseconds = 0L

    fun compare(case: Case) {
        strings++
        val problem = try {
            difference(case)
        } catch (thrown: RuntimeException) { // as of tables broken on purpose, which leave a question no room
            mismatches++
            "threw $thrown"
        }
        if (problem != null && mismatches + misplaced <= SHOWN) println("$case $problem")
    }

    /** What is wrong, counted, or null. */
    private fun difference(case: Case): String? {
        val start = System.nanoTime()
        val found = case.align(tokenizer)
        nanoseconds += System.nanoTime() - start
        tokens += found.sumOf { it.size.toLong() }
        val plain = if (case.stride < 0) case.encode(tokenizer) else found[0].ids
        val difference = if (found.size != case.encodings.size) "windows: ${found.size}, not ${case.encodings.size}" else case.encodings.zip(found).firstNotNullOfOrNull { (right, it) -> right.difference(it, case) }
        val sameIds = plain.contentEquals(case.encodings[0].rows[0])
        if (sameIds && difference == null) return null
        if (sameIds) misplaced++ else mismatches++
        return "$difference\n  ${plain.take(SHOWN_IDS)}"
    }

    fun outcome() =
        """{"strings": $strings, "tokens": $tokens, "mismatches": $mismatches, "misplaced": $misplaced, "seconds": ${nanoseconds / 1e9}}"""
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
