/*
 * How fast the tokenizer is on a warm JVM: a line of JSON.
 *
 * Takes a tokenizer.safetensors and a file of texts, one a line. Returns the milliseconds of reading the tables, the bytes that
 * they hold, the median microseconds of a text of WORDS words, the bytes that one allocates, and the seconds for texts
 * of `half` and twice as many code points.
 */
package io.pocketbert.core

import java.io.File
import java.lang.management.ManagementFactory

private const val ROUNDS = 20_000
private const val WORD_COUNT = 30
private const val HALF = 500_000

private fun seconds(work: () -> Unit): Double {
    val start = System.nanoTime()
    work()
    return (System.nanoTime() - start) / 1e9
}

private fun used(): Long {
    repeat(4) { System.gc() }
    return Runtime.getRuntime().run { totalMemory() - freeMemory() }
}

fun main(arguments: Array<String>) {
    val content = File(arguments[0]).readBytes()
    val cold = seconds { Tokenizer.read(content) }
    repeat(20) { Tokenizer.read(content) }
    val warm = List(20) { seconds { Tokenizer.read(content) } }.sorted()[10]
    val before = used()
    val tokenizer = Tokenizer.read(content)
    val held = used() - before
    val words = File(arguments[1]).readText().split(Regex("\\s+"))
    val messages = words.chunked(WORD_COUNT).filter { it.size == WORD_COUNT }.map { it.joinToString(" ") }
    val times = List(ROUNDS) { i -> seconds { tokenizer.encode(messages[i % messages.size], 128) } }.takeLast(ROUNDS / 2).sorted()
    val threads = ManagementFactory.getThreadMXBean() as com.sun.management.ThreadMXBean
    val allocated = threads.getThreadAllocatedBytes(Thread.currentThread().id)
    messages.forEach { tokenizer.encode(it, 128) }
    val each = (threads.getThreadAllocatedBytes(Thread.currentThread().id) - allocated) / messages.size
    val text = words.joinToString(" ").let { it.repeat(2 * HALF / it.length + 1) }
    val long = listOf(HALF, 2 * HALF).map { size -> List(5) { seconds { tokenizer.encode(text.take(size)) } }.min() }
    println(
        """{"cold_ms": ${cold * 1e3}, "read_ms": ${warm * 1e3}, "held_bytes": $held, "median_us": ${times[times.size / 2] * 1e6},
        "p99_us": ${times[times.size * 99 / 100] * 1e6}, "allocated_bytes": $each, "half_s": ${long[0]}, "whole_s": ${long[1]}}"""
            .replace(Regex("\\s+"), " "),
    )
}
