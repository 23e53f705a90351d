/*
 * How long an app waits, and what it holds: a line of JSON.
 *
 * Takes a kind of engine whose library is loaded, the folder of a bundle, a scratch folder and a text. Returns the milliseconds from an
 * installed and checked bundle to its first label (of the second run on: the first one installs and checks) and those that the
 * processors worked for it, the microseconds of ROUNDS labels of the text and of as many by everything but the engine, the bytes that
 * the latter allocate for each, and by how many bytes the process grew till the last label. Leaves out: statistics.
 */
package io.pocketbert.host

import com.sun.management.OperatingSystemMXBean
import com.sun.management.ThreadMXBean
import io.pocketbert.core.BundleStore
import io.pocketbert.core.Engine
import io.pocketbert.core.EngineKind
import io.pocketbert.core.SelfChecks
import io.pocketbert.core.TextClassifier
import java.io.File
import java.lang.management.ManagementFactory

private const val WARM_UP = 300 // labels until the JVM has compiled what they run through
private const val ROUNDS = 500
private const val MICROSECOND = 1_000L
private const val MILLISECOND = 1_000_000.0
private const val KILOBYTE = 1024L

fun speed(kind: EngineKind, bundle: File, scratch: File, text: String) {
    val before = resident()
    val (started, worked) = System.nanoTime() to processorTime()
    val installed = BundleStore(File(scratch, "store")).install({ File(bundle, it).inputStream() }, kind.format)
    SelfChecks(File(scratch, "checks"), "host").open(installed, kind).use { classifier ->
        classifier.classifyNewest(text)
        val start = (System.nanoTime() - started) / MILLISECOND
        val work = (processorTime() - worked) / MILLISECOND
        val labels = times { classifier.classifyNewest(text) }
        val grown = resident() - before
        val logits = FloatArray(installed.bundle.manifest.labels.size)
        val alone = TextClassifier(installed.bundle, installed.artifact, Engine { logits })
        val rest = times { alone.classifyNewest(text) }
        val allocated = allocatedBytes { alone.classifyNewest(text) }
        println(
            """{"start_ms": $start, "work_ms": $work, "label_us": $labels, "rest_us": $rest, "allocated_bytes": $allocated,
            "grown_bytes": $grown}""".replace("\n", ""),
        )
    }
}

private fun times(work: () -> Unit): List<Long> {
    repeat(WARM_UP) { work() }
    return List(ROUNDS) {
        val start = System.nanoTime()
        work()
        (System.nanoTime() - start) / MICROSECOND
    }
}

/** The nanoseconds that all threads of this process have worked. */
private fun processorTime() = (ManagementFactory.getOperatingSystemMXBean() as OperatingSystemMXBean).processCpuTime

private fun allocatedBytes(work: () -> Unit): Long {
    val threads = ManagementFactory.getThreadMXBean() as ThreadMXBean
    val thread = Thread.currentThread().id
    val before = threads.getThreadAllocatedBytes(thread)
    repeat(ROUNDS) { work() }
    return (threads.getThreadAllocatedBytes(thread) - before) / ROUNDS
}

/** The bytes that this process holds in memory, by /proc. */
private fun resident(): Long {
    System.gc()
    return File("/proc/self/status").readLines().first { it.startsWith("VmRSS:") }.filter(Char::isDigit).toLong() * KILOBYTE
}
