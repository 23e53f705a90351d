/*
 * How long the last answers took, and how much memory the process holds.
 */
package io.pocketbert.chat

import java.io.File
import java.io.IOException
import kotlin.math.ceil

/** The durations of the newest [KEPT] answers, in nanoseconds, oldest first. Immutable. */
class Figures private constructor(private val durations: LongArray) {
    constructor() : this(LongArray(0))

    val count: Int get() = durations.size

    val lastMs: Double? get() = durations.lastOrNull()?.let(::ms)

    /** The nearest-rank percentile in milliseconds, of 0 < [share] <= 1; null before the first answer. */
    fun percentileMs(share: Double): Double? {
        if (durations.isEmpty()) return null
        val rank = ceil(share * durations.size).toInt().coerceIn(1, durations.size)
        return ms(durations.sortedArray()[rank - 1])
    }

    fun with(nanoseconds: Long): Figures {
        val kept = if (durations.size < KEPT) durations else durations.copyOfRange(1, durations.size)
        return Figures(kept + nanoseconds)
    }

    private fun ms(nanoseconds: Long) = nanoseconds / NANOSECONDS_PER_MS

    companion object {
        const val KEPT = 200 // a minute or two of typing
        private const val NANOSECONDS_PER_MS = 1e6
    }
}

/** Bytes of memory that this process holds (VmRSS of Linux, hence of Android); null where there is no such file. */
fun residentBytes(status: File = File("/proc/self/status")): Long? = try {
    status.useLines { lines ->
        lines.firstOrNull { it.startsWith("VmRSS:") }?.filter(Char::isDigit)?.toLongOrNull()?.times(KIBI)
    }
} catch (_: IOException) {
    null
}

private const val KIBI = 1024L
