/*
 * The steps of a normalizer, each over a whole text of code points.
 *
 * Takes a text in one list. Returns the normalized text in another. Which steps there are, and in which order, is what
 * the tables' program says. Leaves out: the meaning of a code point, which is in the tables (export/code_points.py).
 */
package io.pocketbert.core

/** Changes a text: reads `input`, appends to `output`, which is empty. Returns false, with `output` unused, for no change. */
internal fun interface NormalizerStep {
    fun run(input: AlignedText, output: AlignedText): Boolean
}

/** Puts a text in the place of each code point. */
internal class MapStep(private val map: CodePointMap) : NormalizerStep {
    override fun run(input: AlignedText, output: AlignedText): Boolean {
        for (i in 0 until input.size) map.append(input[i], input.place(i), output)
        return true
    }
}

/** Canonical ordering: sorts each run of marks by rank; equal ranks keep their order. */
internal class OrderStep(private val ranks: CodePointTable) : NormalizerStep {
    override fun run(input: AlignedText, output: AlignedText): Boolean {
        var start = firstDisorder(input)
        if (start < 0) return false
        output.addAll(input, 0, start)
        while (start < input.size) {
            var end = start
            while (end < input.size && ranks[input[end]] > 0) end++
            sort(input, start, end, output)
            if (end < input.size) output.add(input[end], input.place(end))
            start = end + 1
        }
        return true
    }

    /** Where the run of marks starts that holds the first one out of order; -1 for none. */
    private fun firstDisorder(input: AlignedText): Int {
        var before = 0
        var start = 0
        for (i in 0 until input.size) {
            val rank = ranks[input[i]]
            if (rank == 0) start = i + 1 else if (rank < before) return start
            before = rank
        }
        return -1
    }

    /** Counting sort: a run can be as long as the text, and there are few ranks. */
    private fun sort(input: AlignedText, start: Int, end: Int, output: AlignedText) {
        if (end - start < 2) return output.addAll(input, start, end)
        val slots = IntArray(RANKS + 1)
        for (i in start until end) slots[ranks[input[i]] + 1]++
        for (rank in 1 until slots.size) slots[rank] += slots[rank - 1]
        val base = output.size
        output.resize(base + end - start)
        for (i in start until end) {
            val slot = base + slots[ranks[input[i]]]++
            output.points[slot] = input[i]
            output.places[slot] = input.places[i]
        }
        dealPlaces(input, start, output, base)
    }

    /** As the library does: places do not move with marks. The k-th that is not added gets the k-th place; added ones stay with the one before. */
    private fun dealPlaces(input: AlignedText, start: Int, output: AlignedText, base: Int) {
        var next = start
        var place = if (start > 0) input.place(start - 1) else 0
        for (i in base until output.size) {
            if (!output.isAdded(i)) {
                while (input.isAdded(next)) next++
                place = input.place(next++)
            }
            output.places[i] = place
        }
    }

    companion object {
        const val RANKS = 256 // Unicode has no more combining classes
    }
}

/** Puts one text in the place of another, from left to right; it stands where the last code point of that stood. */
internal class ReplaceStep(private val pattern: IntArray, private val content: IntArray) : NormalizerStep {
    override fun run(input: AlignedText, output: AlignedText): Boolean {
        var end = 0 // of what was taken over
        var place = 0
        while (place + pattern.size <= input.size) {
            if (!found(input, place)) {
                place++
                continue
            }
            output.addAll(input, end, place)
            place += pattern.size
            output.addAll(content, input.place(place - 1))
            end = place
        }
        if (end == 0) return false
        output.addAll(input, end, input.size)
        return true
    }

    private fun found(input: AlignedText, place: Int): Boolean = pattern.indices.all { input[place + it] == pattern[it] }
}

/** Puts a text in the place of each run of two or more spaces; it stands where the last of them stood. */
internal class CollapseStep(private val content: IntArray) : NormalizerStep {
    override fun run(input: AlignedText, output: AlignedText): Boolean {
        var taken = 0 // up to here the text is accounted for
        var i = 0
        while (i < input.size) {
            var end = i
            while (end < input.size && input[end] == SPACE) end++
            if (end - i >= 2) {
                output.addAll(input, taken, i)
                output.addAll(content, input.place(end - 1))
                taken = end
            }
            i = maxOf(end, i + 1)
        }
        if (taken == 0) return false
        output.addAll(input, taken, input.size)
        return true
    }

    private companion object {
        const val SPACE = 0x20
    }
}

/**
 * SentencePiece's precompiled charsmap, as `tokenizers` applies it: a grapheme cluster below six bytes of UTF-8 becomes,
 * whole, what the shortest key at its start says; in any other cluster each code point does.
 */
internal class CharsmapStep(
    private val keys: Trie,
    private val texts: Texts,
    private val classes: CodePointTable,
    private val transitions: CharArray, // (states, classes): next state, with BREAK where a new cluster begins
) : NormalizerStep {
    override fun run(input: AlignedText, output: AlignedText): Boolean {
        var start = 0
        var state = 0
        for (end in 0 until input.size) {
            val next = transitions[state * CLASSES + classes[input[end]]].code
            if (next >= BREAK && end > 0) {
                appendCluster(input, start, end, output)
                start = end
            }
            state = next and BREAK - 1
        }
        if (input.size > 0) appendCluster(input, start, input.size, output)
        dealPlaces(input, output)
        return true
    }

    private fun appendCluster(input: AlignedText, start: Int, end: Int, output: AlignedText) {
        if (isShort(input, start, end) && replace(input, start, end, output)) return
        for (i in start until end) if (!replace(input, i, i + 1, output)) output.add(input[i], REPLACES)
    }

    private fun isShort(input: AlignedText, start: Int, end: Int): Boolean {
        if (end - start >= LONG) return false
        return (start until end).sumOf { utf8Size(input[it]) } < LONG
    }

    /** Appends the text of the shortest key at `start` for all up to `end`; false if there is none. */
    private fun replace(input: AlignedText, start: Int, end: Int, output: AlignedText): Boolean {
        var node = Trie.ROOT
        for (i in start until end) {
            node = keys.child(node, input[i])
            if (node == Trie.NONE) return false
            if (keys.value(node) != Trie.NONE) {
                append(keys.value(node), end - start, output)
                return true
            }
        }
        return false
    }

    /** Appends a text for `count` code points. Until places are dealt, what each takes of the input stands in its place. */
    private fun append(number: Int, count: Int, output: AlignedText) {
        val base = output.size
        texts.append(number, 0, output)
        for (i in base until output.size) output.places[i] = if (i < base + count) REPLACES else ADDED
        val removed = count - (output.size - base)
        if (removed > 0 && output.size > 0) output.places[output.size - 1] -= removed
    }

    /**
     * As the library does, which counts what is taken away with the last code point before; nothing is before the first, so
     * there the count is lost, and all behind stand too far left.
     */
    private fun dealPlaces(input: AlignedText, output: AlignedText) {
        var next = 0
        for (i in 0 until output.size) {
            val taken = output.places[i]
            output.places[i] = input.place(if (taken == ADDED) next - 1 else next)
            next += ADDED - taken
        }
    }

    private fun utf8Size(point: Int) = if (point < 0x80) 1 else if (point < 0x800) 2 else if (point < 0x10000) 3 else 4

    companion object {
        const val CLASSES = 17 // export/graphemes.py, Class
        const val BREAK = 0x8000
        private const val LONG = 6 // bytes; shorter clusters are looked up whole
        private const val ADDED = 1 // takes nothing of the input
        private const val REPLACES = 0 // takes one code point of it; each number less takes one more
    }
}
