/*
 * The four shapes of table that a tokenizer is made of, as BUNDLE.md describes them: numbers by code point, texts by
 * number, texts by code point, and a trie. All are read as they lie in the file; none is built.
 */
package io.pocketbert.core

/** A list of ints that grows: code points, ids or ends of pieces. */
internal class IntList(capacity: Int = 64) {
    var array = IntArray(capacity)
        private set
    var size = 0
        private set

    operator fun get(index: Int) = array[index]

    fun add(value: Int) {
        if (size == array.size) grow(size + 1)
        array[size++] = value
    }

    fun addAll(values: IntArray, start: Int, end: Int) {
        if (size + end - start > array.size) grow(size + end - start)
        values.copyInto(array, size, start, end)
        size += end - start
    }

    fun resize(newSize: Int) {
        if (newSize > array.size) grow(newSize)
        size = newSize
    }

    fun clear() {
        size = 0
    }

    fun toArray(): IntArray = array.copyOf(size)

    private fun grow(needed: Int) {
        array = array.copyOf(maxOf(needed, array.size * 2))
    }
}

/** A number below 65536 for each code point; 0 for those of which nothing is said. */
internal class CodePointTable(file: TensorFile, name: String) {
    private val pages = file.chars("$name.pages")
    private val values = file.chars("$name.values")

    init {
        val last = (pages.maxOrNull()?.code ?: 0) shl PAGE_BITS or PAGE_MASK
        if (pages.size != PAGES || last >= values.size) throw BundleException("table '$name' is cut off")
    }

    operator fun get(point: Int): Int = values[(pages[point ushr PAGE_BITS].code shl PAGE_BITS) + (point and PAGE_MASK)].code

    private companion object {
        const val PAGE_BITS = 8
        const val PAGE_MASK = 0xFF
        const val PAGES = 0x110000 shr PAGE_BITS
    }
}

/** Texts by number. */
internal class Texts(file: TensorFile, name: String) {
    private val starts = file.ints("$name.starts")
    private val points = file.ints("$name.texts")

    fun append(number: Int, output: IntList) = output.addAll(points, starts[number], starts[number + 1])
}

/** Texts by code point: what a normalizer puts in the place of each. */
internal class CodePointMap(file: TensorFile, name: String) {
    private val actions = CodePointTable(file, name)
    private val texts = Texts(file, name)

    /** Appends what `point` becomes. */
    fun append(point: Int, output: IntList) {
        when (val action = actions[point]) {
            KEEP -> output.add(point)
            SPACED -> {
                output.add(SPACE)
                output.add(point)
                output.add(SPACE)
            }
            HANGUL -> appendJamo(point, output)
            else -> texts.append(action - TEXTS, output)
        }
    }

    /** Takes a Hangul syllable apart (Unicode, chapter 3.12). */
    private fun appendJamo(syllable: Int, output: IntList) {
        val index = syllable - FIRST_SYLLABLE
        output.add(FIRST_L + index / (VOWELS * TAILS))
        output.add(FIRST_V + index / TAILS % VOWELS)
        if (index % TAILS != 0) output.add(FIRST_T + index % TAILS)
    }

    private companion object {
        const val KEEP = 0
        const val SPACED = 1
        const val HANGUL = 2
        const val TEXTS = 3 // this action and all above it: text number `action - TEXTS`
        const val SPACE = 0x20
        const val FIRST_SYLLABLE = 0xAC00
        const val FIRST_L = 0x1100
        const val FIRST_V = 0x1161
        const val FIRST_T = 0x11A7
        const val VOWELS = 21
        const val TAILS = 28
    }
}

/** Keys over code points with a number each. Node 0 is the root; walk it with [child] and ask [value]. */
internal class Trie(file: TensorFile, name: String) {
    private val labels = file.ints("$name.labels") // each node's last code point, ascending among siblings
    private val values = file.ints("$name.values") // the number of the key that ends in each node, or NONE
    private val children = file.ints("$name.children") // where each node's children start; they lie in a row

    init {
        val complete = values.size == labels.size && children.size == labels.size + 1 && children.last() == labels.size
        if (!complete) throw BundleException("trie '$name' is cut off")
    }

    val isEmpty get() = labels.size == 1

    fun value(node: Int): Int = values[node]

    /** The child of a node by its code point, or NONE. */
    fun child(node: Int, point: Int): Int {
        var low = children[node]
        var high = children[node + 1] - 1
        while (low <= high) {
            val middle = (low + high) ushr 1
            val label = labels[middle]
            if (label == point) return middle
            if (label < point) low = middle + 1 else high = middle - 1
        }
        return NONE
    }

    /** The node of a whole text, or NONE. */
    fun find(points: IntArray, start: Int, end: Int): Int {
        var node = ROOT
        for (i in start until end) {
            node = child(node, points[i])
            if (node == NONE) return NONE
        }
        return node
    }

    companion object {
        const val ROOT = 0
        const val NONE = -1
    }
}

/** The code points of a text; each unpaired surrogate, which no UTF-8 can hold, becomes U+FFFD. */
internal fun appendCodePoints(text: String, output: IntList) {
    var i = 0
    while (i < text.length) {
        val unit = text[i++]
        if (!unit.isSurrogate()) {
            output.add(unit.code)
        } else if (unit.isHighSurrogate() && i < text.length && text[i].isLowSurrogate()) {
            output.add(Character.toCodePoint(unit, text[i++]))
        } else {
            output.add(REPLACEMENT)
        }
    }
}

internal fun codePoints(text: String): IntArray = IntList(text.length.coerceAtLeast(1)).also { appendCodePoints(text, it) }.toArray()

private const val REPLACEMENT = 0xFFFD
