/*
 * The steps of a normalizer, each over a whole text of code points.
 *
 * Takes a text in one list. Gives the normalized text in another. Which steps there are, and in which order, is what
 * the tables' program says. Leaves out: the meaning of a code point, which is in the tables (export/code_points.py).
 */
package io.pocketbert.core

/** Changes a text: reads `input`, appends to `output`, which is empty. Gives false, with `output` unused, for no change. */
internal fun interface NormalizerStep {
    fun run(input: IntList, output: IntList): Boolean
}

/** Puts a text in the place of each code point. */
internal class MapStep(private val map: CodePointMap) : NormalizerStep {
    override fun run(input: IntList, output: IntList): Boolean {
        for (i in 0 until input.size) map.append(input[i], output)
        return true
    }
}

/** Canonical ordering: sorts each run of marks by rank; equal ranks keep their order. */
internal class OrderStep(private val ranks: CodePointTable) : NormalizerStep {
    override fun run(input: IntList, output: IntList): Boolean {
        var start = firstDisorder(input)
        if (start < 0) return false
        output.addAll(input.array, 0, start)
        while (start < input.size) {
            var end = start
            while (end < input.size && ranks[input[end]] > 0) end++
            sort(input, start, end, output)
            if (end < input.size) output.add(input[end])
            start = end + 1
        }
        return true
    }

    /** Where the run of marks starts that holds the first one out of order; -1 for none. */
    private fun firstDisorder(input: IntList): Int {
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
    private fun sort(input: IntList, start: Int, end: Int, output: IntList) {
        if (end - start < 2) return output.addAll(input.array, start, end)
        val places = IntArray(RANKS + 1)
        for (i in start until end) places[ranks[input[i]] + 1]++
        for (rank in 1 until places.size) places[rank] += places[rank - 1]
        val base = output.size
        output.resize(base + end - start)
        for (i in start until end) output.array[base + places[ranks[input[i]]]++] = input[i]
    }

    private companion object {
        const val RANKS = 256 // Unicode has no more combining classes
    }
}

/** Puts one text in the place of another, from left to right. */
internal class ReplaceStep(private val pattern: IntArray, private val content: IntArray) : NormalizerStep {
    override fun run(input: IntList, output: IntList): Boolean {
        var end = 0 // of what was taken over
        var place = 0
        while (place + pattern.size <= input.size) {
            if (!found(input, place)) {
                place++
                continue
            }
            output.addAll(input.array, end, place)
            output.addAll(content, 0, content.size)
            place += pattern.size
            end = place
        }
        if (end == 0) return false
        output.addAll(input.array, end, input.size)
        return true
    }

    private fun found(input: IntList, place: Int): Boolean = pattern.indices.all { input[place + it] == pattern[it] }
}

/** Puts a text in the place of each run of two or more spaces. */
internal class CollapseStep(private val content: IntArray) : NormalizerStep {
    override fun run(input: IntList, output: IntList): Boolean {
        var i = 0
        while (i < input.size) {
            var end = i
            while (end < input.size && input[end] == SPACE) end++
            if (end - i >= 2) output.addAll(content, 0, content.size) else output.addAll(input.array, i, maxOf(end, i + 1))
            i = maxOf(end, i + 1)
        }
        return output.size != input.size || !content.contentEquals(intArrayOf(SPACE))
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
    override fun run(input: IntList, output: IntList): Boolean {
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
        return true
    }

    private fun appendCluster(input: IntList, start: Int, end: Int, output: IntList) {
        if (isShort(input, start, end) && replace(input, start, end, output)) return
        for (i in start until end) if (!replace(input, i, i + 1, output)) output.add(input[i])
    }

    private fun isShort(input: IntList, start: Int, end: Int): Boolean {
        if (end - start >= LONG) return false
        return (start until end).sumOf { utf8Size(input[it]) } < LONG
    }

    /** Appends the text of the shortest key at `start`; false if there is none before `end`. */
    private fun replace(input: IntList, start: Int, end: Int, output: IntList): Boolean {
        var node = Trie.ROOT
        for (i in start until end) {
            node = keys.child(node, input[i])
            if (node == Trie.NONE) return false
            if (keys.value(node) != Trie.NONE) {
                texts.append(keys.value(node), output)
                return true
            }
        }
        return false
    }

    private fun utf8Size(point: Int) = if (point < 0x80) 1 else if (point < 0x800) 2 else if (point < 0x10000) 3 else 4

    companion object {
        const val CLASSES = 17 // export/graphemes.py, Class
        const val BREAK = 0x8000
        private const val LONG = 6 // bytes; shorter clusters are looked up whole
    }
}
