/*
 * Tokens that are found in a text before it is split into words: [MASK], and whatever was added to a vocabulary.
 *
 * Takes a text. Returns the places of these tokens. Leaves out: normalization; there is one finder for the text as
 * written and one for the normalized text.
 */
package io.pocketbert.core

/** How one added token is found. */
internal class AddedToken(
    val id: Int,
    val singleWord: Boolean, // not inside a word
    val takesLeft: Boolean, // takes the blanks on its left away
    val takesRight: Boolean,
)

/** Stretches of a text, in order; those that are an added token have its id. */
internal class Sections {
    private val numbers = IntList()
    val size get() = numbers.size / FIELDS

    fun add(start: Int, end: Int, id: Int, length: Int) {
        numbers.add(start)
        numbers.add(end)
        numbers.add(id)
        numbers.add(length)
    }

    fun start(section: Int) = numbers[section * FIELDS]

    fun end(section: Int) = numbers[section * FIELDS + 1]

    fun id(section: Int) = numbers[section * FIELDS + 2]

    /** Code points of an added token without the blanks that it takes. */
    fun length(section: Int) = numbers[section * FIELDS + 3]

    fun clear() = numbers.clear()

    companion object {
        const val TEXT = -1 // the id of a stretch that is no added token
        private const val FIELDS = 4
    }
}

/** Finds added tokens: the leftmost, and of those that start together the longest. */
internal class AddedTokens(private val trie: Trie, private val tokens: List<AddedToken>, private val words: CodePointTable?) {
    /** Appends the sections of `text`. */
    fun find(text: AlignedText, sections: Sections) {
        var taken = 0 // up to here the text is accounted for
        var place = if (trie.isEmpty) text.size else 0
        while (place < text.size) {
            val end = longest(text, place)
            if (end < 0) {
                place++
                continue
            }
            val token = tokens[trie.value(trie.find(text.points, place, end))]
            if (!token.singleWord || isWhole(text, place, end)) {
                val left = if (token.takesLeft) skipLeft(text, place, taken) else place
                val right = if (token.takesRight) skipRight(text, end) else end
                if (taken < left) sections.add(taken, left, Sections.TEXT, 0)
                sections.add(left, right, token.id, end - place)
                taken = right
            }
            place = end
        }
        if (taken < text.size) sections.add(taken, text.size, Sections.TEXT, 0)
    }

    /** The end of the longest token that starts at `place`, or -1. */
    private fun longest(text: AlignedText, place: Int): Int {
        var end = -1
        var node = Trie.ROOT
        for (i in place until text.size) {
            node = trie.child(node, text[i])
            if (node == Trie.NONE) break
            if (trie.value(node) != Trie.NONE) end = i + 1
        }
        return end
    }

    private fun isWhole(text: AlignedText, start: Int, end: Int): Boolean =
        (start == 0 || kind(text[start - 1]) != WORD) && (end == text.size || kind(text[end]) != WORD)

    private fun skipLeft(text: AlignedText, start: Int, taken: Int): Int {
        var left = start
        while (left > taken && kind(text[left - 1]) == BLANK) left--
        return maxOf(left, taken)
    }

    private fun skipRight(text: AlignedText, end: Int): Int {
        var right = end
        while (right < text.size && kind(text[right]) == BLANK) right++
        return right
    }

    private fun kind(point: Int): Int = words?.get(point) ?: throw BundleException("the tokenizer has no table 'words'")

    private companion object {
        const val BLANK = 1
        const val WORD = 2
    }
}
