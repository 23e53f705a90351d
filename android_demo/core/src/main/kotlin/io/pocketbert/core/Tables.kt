/*
 * The four shapes of table that a tokenizer is made of, as BUNDLE.md describes them: numbers by code point, texts by
 * number, texts by code point, and a trie. All are read as they lie in the file; none is built.
 *
 * Every number that points somewhere is looked at when a table is read, so that no text can lead outside it later.
 */
package io.pocketbert.core

/** A list of ints that grows: ids, ends of pieces. */
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

/** A number up to `most` for each code point; 0 for those of which nothing is said. */
internal class CodePointTable(file: TensorFile, name: String, most: Int = Char.MAX_VALUE.code) {
    private val pages = file.chars("$name.pages")
    private val values = file.chars("$name.values")

    init {
        val last = (pages.maxOrNull()?.code ?: 0) shl PAGE_BITS or PAGE_MASK
        if (pages.size != PAGES || last >= values.size) throw BundleException("table '$name' is cut off")
        if (values.any { it.code > most }) throw BundleException("table '$name' has a number above $most")
    }

    operator fun get(point: Int): Int = values[(pages[point ushr PAGE_BITS].code shl PAGE_BITS) + (point and PAGE_MASK)].code

    /** Whether code points outside `range` have this number. A page that several places share is looked through once. */
    fun hasOutside(range: IntRange, number: Int): Boolean {
        val holders = BooleanArray(values.size shr PAGE_BITS) { page -> (0..PAGE_MASK).any { values[(page shl PAGE_BITS) + it].code == number } }
        return pages.indices.any { page ->
            val points = (page shl PAGE_BITS)..(page shl PAGE_BITS or PAGE_MASK)
            holders[pages[page].code] && points.any { it !in range && get(it) == number }
        }
    }

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
    val count = starts.size - 1

    init {
        val whole = count >= 0 && starts.first() >= 0 && starts.last() <= points.size && isAscending(starts)
        if (!whole || points.any { it !in 0..Character.MAX_CODE_POINT }) throw BundleException("texts '$name' are cut off or damaged")
    }

    /** Appends what stands, whole, at one place; all but the first are added to it. */
    fun append(number: Int, place: Int, output: AlignedText) {
        val start = starts[number]
        for (i in start until starts[number + 1]) output.add(points[i], if (i == start) place else place.inv())
    }
}

/** Texts by code point: what a normalizer puts in the place of each. */
internal class CodePointMap(file: TensorFile, name: String) {
    private val texts = Texts(file, name)
    private val actions = CodePointTable(file, name, TEXTS + texts.count - 1)

    init {
        if (actions.hasOutside(FIRST_SYLLABLE..LAST_SYLLABLE, HANGUL)) throw BundleException("map '$name' takes apart what is no syllable")
    }

    /** Appends what `point` becomes; it stays at its place, and all but the first are added to it. */
    fun append(point: Int, place: Int, output: AlignedText) {
        when (val action = actions[point]) {
            KEEP -> output.add(point, place)
            SPACED -> {
                output.add(SPACE, place)
                output.add(point, place.inv())
                output.add(SPACE, place.inv())
            }
            HANGUL -> appendJamo(point, place, output)
            else -> texts.append(action - TEXTS, place, output)
        }
    }

    /** Takes a Hangul syllable apart (Unicode, chapter 3.12). */
    private fun appendJamo(syllable: Int, place: Int, output: AlignedText) {
        val index = syllable - FIRST_SYLLABLE
        output.add(FIRST_L + index / (VOWELS * TAILS), place)
        output.add(FIRST_V + index / TAILS % VOWELS, place.inv())
        if (index % TAILS != 0) output.add(FIRST_T + index % TAILS, place.inv())
    }

    private companion object {
        const val KEEP = 0
        const val SPACED = 1
        const val HANGUL = 2
        const val TEXTS = 3 // this action and all above it: text number `action - TEXTS`
        const val SPACE = 0x20
        const val FIRST_SYLLABLE = 0xAC00
        const val LAST_SYLLABLE = 0xD7A3
        const val FIRST_L = 0x1100
        const val FIRST_V = 0x1161
        const val FIRST_T = 0x11A7
        const val VOWELS = 21
        const val TAILS = 28
    }
}

/** Keys over code points with a number below `numbers` each. Node 0 is the root; walk it with [child] and ask [value]. */
internal class Trie(file: TensorFile, name: String, numbers: Int = Int.MAX_VALUE) {
    private val labels = file.ints("$name.labels") // each node's last code point, ascending among siblings
    private val values = file.ints("$name.values") // the number of the key that ends in each node, or NONE
    private val children = file.ints("$name.children") // where each node's children start; they lie in a row

    init {
        val complete = values.size == labels.size && children.size == labels.size + 1 && children.last() == labels.size
        if (!complete || labels.isEmpty()) throw BundleException("trie '$name' is cut off")
        if (children.first() < 0 || !isAscending(children)) throw BundleException("trie '$name' has children elsewhere")
        if (values.any { it < NONE || it >= numbers }) throw BundleException("trie '$name' has a number outside 0 to ${numbers - 1}")
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

private fun isAscending(numbers: IntArray): Boolean = (1 until numbers.size).all { numbers[it - 1] <= numbers[it] }
