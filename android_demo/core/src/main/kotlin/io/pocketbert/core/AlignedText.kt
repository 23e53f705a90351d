/*
 * A text on its way through the steps of a tokenizer: code points, and for each where it stands in the text as written.
 *
 * Takes what a step writes. Returns the same to the next step. Leaves out: what moves a place, which each step says.
 */
package io.pocketbert.core

internal class AlignedText {
    var points = IntArray(64)
        private set

    /** Offsets in UTF-16 units of the text as written; bitwise inverted where the last map added a code point to the one before it. */
    var places = IntArray(64)
        private set
    var size = 0
        private set

    operator fun get(index: Int) = points[index]

    fun place(index: Int): Int = places[index].let { if (it < 0) it.inv() else it }

    /** Whether the last map made this of what it made the one before of: canonical ordering asks. */
    fun isAdded(index: Int) = places[index] < 0

    fun add(point: Int, place: Int) {
        if (size == points.size) grow(size + 1)
        points[size] = point
        places[size++] = place
    }

    fun addAll(other: AlignedText, start: Int, end: Int) {
        val base = size
        resize(base + end - start)
        other.points.copyInto(points, base, start, end)
        other.places.copyInto(places, base, start, end)
    }

    /** Adds a text that stands, whole, at one place. */
    fun addAll(text: IntArray, place: Int) = text.forEach { add(it, place) }

    fun resize(newSize: Int) {
        if (newSize > points.size) grow(newSize)
        size = newSize
    }

    fun clear() {
        size = 0
    }

    private fun grow(needed: Int) {
        points = points.copyOf(maxOf(needed, points.size * 2))
        places = places.copyOf(points.size)
    }
}

/** The code points of a text; each unpaired surrogate, which no UTF-8 can hold, becomes U+FFFD. */
internal fun appendCodePoints(text: String, output: AlignedText) {
    var i = 0
    while (i < text.length) {
        val place = i
        val unit = text[i++]
        if (!unit.isSurrogate()) {
            output.add(unit.code, place)
        } else if (unit.isHighSurrogate() && i < text.length && text[i].isLowSurrogate()) {
            output.add(Character.toCodePoint(unit, text[i++]), place)
        } else {
            output.add(REPLACEMENT, place)
        }
    }
}

/** Where the code point ends that starts at `place`. */
internal fun endOfPoint(text: String, place: Int): Int =
    if (text[place].isHighSurrogate() && place + 1 < text.length && text[place + 1].isLowSurrogate()) place + 2 else place + 1

internal fun codePoints(text: String): IntArray = AlignedText().also { appendCodePoints(text, it) }.run { points.copyOf(size) }

private const val REPLACEMENT = 0xFFFD
