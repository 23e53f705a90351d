/*
 * From a text to the ids that an artifact takes, exactly as Hugging Face's tokenizers gives them.
 *
 * Takes tokenizer.safetensors of a bundle. Gives ids, special tokens included, cut to a length. Leaves out: padding
 * (TextClassifier), offsets, decoding.
 *
 * The road: find added tokens in the text as written; normalize each stretch between them; find added tokens in that;
 * split into pieces; ids of each piece; cut; put into the template.
 */
package io.pocketbert.core

import java.util.concurrent.atomic.AtomicReference

/** A bundle's tokenizer; immutable, so safe to share between threads. */
class Tokenizer internal constructor(
    private val normalizer: List<NormalizerStep>,
    private val splitter: List<SplitterStep>,
    private val model: Model,
    private val written: AddedTokens, // found in the text as written
    private val normalized: AddedTokens, // found in the normalized text
    private val single: IntArray, // ids around one text, which FIRST stands for
    private val pair: IntArray, // ids around two, FIRST and SECOND
) {
    private val spare = AtomicReference<Workspace?>() // one set of buffers, for whoever comes next

    /** The ids of a text, at most [maxLength] of them: ids of the text are dropped from its end. */
    fun encode(text: String, maxLength: Int = Int.MAX_VALUE): IntArray {
        val room = room(single, maxLength)
        return withWorkspace { work ->
            val ids = sequence(text, maxLength, work)
            fill(single, ids, minOf(ids.size, room), NO_IDS, 0)
        }
    }

    /** The ids of two texts, at most [maxLength] of them: ids are dropped from the end of the longer text first. */
    fun encode(first: String, second: String, maxLength: Int = Int.MAX_VALUE): IntArray {
        val room = room(pair, maxLength)
        return withWorkspace { work ->
            val firstIds = sequence(first, Int.MAX_VALUE, work) // how much is cut depends on both whole lengths
            val secondIds = sequence(second, Int.MAX_VALUE, work)
            val kept = cut(firstIds.size, secondIds.size, room)
            fill(pair, firstIds, kept.first, secondIds, kept.second)
        }
    }

    private fun room(template: IntArray, maxLength: Int): Int {
        val specials = template.count { it >= 0 }
        require(maxLength >= specials) { "maxLength $maxLength has no room for $specials special tokens" }
        return maxLength - specials
    }

    private fun fill(template: IntArray, first: IntArray, firstSize: Int, second: IntArray, secondSize: Int): IntArray {
        val output = IntList(template.size + firstSize + secondSize)
        for (id in template) {
            when (id) {
                FIRST -> output.addAll(first, 0, firstSize)
                SECOND -> output.addAll(second, 0, secondSize)
                else -> output.add(id)
            }
        }
        return output.toArray()
    }

    /** How many ids stay of two texts: LongestFirst in tokenizers/src/utils/truncation.rs. */
    private fun cut(first: Int, second: Int, room: Int): Pair<Int, Int> {
        if (first.toLong() + second <= room) return first to second
        var short = minOf(first, second)
        var long = if (short > room) short else maxOf(short, room - short)
        if (short.toLong() + long > room) {
            short = room / 2
            long = short + room % 2
        }
        return if (first > second) long to short else short to long
    }

    /** The ids of one text without special tokens. Pieces behind the one that reaches `limit` are left out. */
    private fun sequence(text: String, limit: Int, work: Workspace): IntArray {
        work.clear()
        appendCodePoints(text, work.text)
        written.find(work.text, work.sections)
        var open = true
        for (section in 0 until work.sections.size) {
            if (!open) break
            val (start, id) = work.sections.start(section) to work.sections.id(section)
            if (id != Sections.TEXT) work.ids.add(id) else open = stretch(start, work.sections.end(section), limit, work)
        }
        return work.ids.toArray()
    }

    /** Appends the ids of a stretch between added tokens. False once there are `limit` ids. */
    private fun stretch(start: Int, end: Int, limit: Int, work: Workspace): Boolean {
        work.normalized.clear()
        work.normalized.addAll(work.text.array, start, end)
        for (step in normalizer) {
            work.other.clear()
            if (step.run(work.normalized, work.other)) work.swapTexts()
        }
        work.inner.clear()
        normalized.find(work.normalized, work.inner)
        for (section in 0 until work.inner.size) {
            val (from, id) = work.inner.start(section) to work.inner.id(section)
            if (id != Sections.TEXT) {
                work.ids.add(id)
            } else if (!pieces(from, work.inner.end(section), limit, work)) {
                return false
            }
        }
        return true
    }

    private fun pieces(start: Int, end: Int, limit: Int, work: Workspace): Boolean {
        work.pieces.clear()
        work.pieces.points.addAll(work.normalized.array, start, end)
        work.pieces.close()
        for (step in splitter) {
            work.otherPieces.clear()
            step.run(work.pieces, work.otherPieces)
            work.swapPieces()
        }
        for (piece in 0 until work.pieces.size) {
            model.append(work.pieces.points.array, work.pieces.start(piece), work.pieces.ends[piece], work.ids, work.path)
            if (work.ids.size >= limit) return false
        }
        return true
    }

    /** Lends buffers that earlier texts have grown, so that a keystroke allocates little more than its ids. */
    private inline fun <T> withWorkspace(use: (Workspace) -> T): T {
        val work = spare.getAndSet(null) ?: Workspace()
        val result = use(work)
        if (work.text.array.size <= KEPT) spare.set(work)
        return result
    }

    companion object {
        internal const val FIRST = -1
        internal const val SECOND = -2
        private val NO_IDS = IntArray(0)
        private const val KEPT = 1 shl 14 // code points; buffers that a longer text has grown are not held

        /** Reads tokenizer.safetensors. Throws [BundleException] naming a part that this version does not know. */
        fun read(content: ByteArray): Tokenizer = TokenizerReader(TensorFile(content)).read()
    }
}

/** The buffers of one call. */
internal class Workspace {
    val text = IntList()
    val sections = Sections()
    val inner = Sections()
    var normalized = IntList()
        private set
    var other = IntList()
        private set
    var pieces = Pieces()
        private set
    var otherPieces = Pieces()
        private set
    val path = ViterbiPath()
    val ids = IntList()

    fun clear() {
        text.clear()
        sections.clear()
        ids.clear()
    }

    fun swapTexts() {
        normalized = other.also { other = normalized }
    }

    fun swapPieces() {
        pieces = otherPieces.also { otherPieces = pieces }
    }
}
