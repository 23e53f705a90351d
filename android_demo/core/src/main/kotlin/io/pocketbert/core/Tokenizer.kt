/*
 * From a text to the ids that an artifact takes, exactly as Hugging Face's tokenizers gives them.
 *
 * Takes tokenizer.safetensors of a bundle. Returns ids, special tokens included, cut to a length; where each stands in the text
 * as well if asked for (Encoding). Leaves out: padding (the classifiers), decoding.
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
    fun encode(text: String, maxLength: Int = Int.MAX_VALUE): IntArray = withWorkspace { work ->
        val kept = tokenize(text, maxLength, work)
        ids(single, work, kept, 0)
    }

    /** The ids of two texts, at most [maxLength] of them: ids are dropped from the end of the longer text first. */
    fun encode(first: String, second: String, maxLength: Int = Int.MAX_VALUE): IntArray = withWorkspace { work ->
        val kept = tokenize(first, second, maxLength, work)
        ids(pair, work, kept.first, kept.second)
    }

    /** The ids of [encode], and where each stands in the text. */
    fun align(text: String, maxLength: Int = Int.MAX_VALUE): Encoding = withWorkspace { work ->
        val kept = tokenize(text, maxLength, work)
        encoding(single, work, kept, 0, 0)
    }

    /** The ids of [encode], and where each stands in its text. */
    fun align(first: String, second: String, maxLength: Int = Int.MAX_VALUE): Encoding = withWorkspace { work ->
        val kept = tokenize(first, second, maxLength, work)
        encoding(pair, work, kept.first, 0, kept.second)
    }

    /**
     * Two texts, the first whole beside each part of the second, in as many parts of at most [maxLength] tokens as it takes. Parts
     * that follow each other share [stride] tokens; without it half the [maxLength] or [LARGEST_STRIDE], or half the room where that
     * is too much. Throws [IllegalArgumentException] for a first text that leaves no room, and for a stride that leaves none for
     * anything new.
     */
    fun windows(first: String, second: String, maxLength: Int, stride: Int? = null): List<Encoding> = withWorkspace { work ->
        sequence(first, Int.MAX_VALUE, work, work.first)
        sequence(second, Int.MAX_VALUE, work, work.second)
        val (before, whole) = work.first.size to work.second.size
        val room = room(pair, maxLength) - before
        if (whole <= room) return@withWorkspace listOf(encoding(pair, work, before, 0, whole))
        require(room > 0) { "a question of $before tokens leaves no room for the text" }
        val step = room - checkStride(stride, maxLength, room)
        val starts = generateSequence(0) { if (it + room < whole) it + step else null }
        starts.map { encoding(pair, work, before, it, minOf(it + room, whole)) }.toList()
    }

    private fun checkStride(stride: Int?, maxLength: Int, room: Int): Int {
        if (stride == null) return minOf(maxLength / 2, LARGEST_STRIDE).let { if (it < room) it else room / 2 }
        require(stride in 0 until room) { "stride $stride: use 0 to ${room - 1}, what the question leaves room for" }
        return stride
    }

    /** How many special tokens stand around one text: no maxLength may be smaller. */
    internal val specials get() = single.size - 1

    /** The token for what the vocabulary lacks, and whether tokens within a word have a mark of their own in the vocabulary. */
    internal val unkId get() = model.unkId
    internal val marksContinuation get() = model.continuationSize > 0

    private fun room(template: IntArray, maxLength: Int): Int {
        val specials = template.count { it >= 0 }
        require(maxLength >= specials) { "maxLength $maxLength has no room for $specials special tokens" }
        return maxLength - specials
    }

    /** Tokenizes one text. Returns how many tokens stay. */
    private fun tokenize(text: String, maxLength: Int, work: Workspace): Int {
        val room = room(single, maxLength)
        sequence(text, maxLength, work, work.first)
        return minOf(work.first.size, room)
    }

    /** Tokenizes two texts. Returns how many tokens stay of each. */
    private fun tokenize(first: String, second: String, maxLength: Int, work: Workspace): Pair<Int, Int> {
        val room = room(pair, maxLength)
        sequence(first, Int.MAX_VALUE, work, work.first) // how much is cut depends on both whole lengths
        sequence(second, Int.MAX_VALUE, work, work.second)
        return cut(work.first.size, work.second.size, room)
    }

    private fun ids(template: IntArray, work: Workspace, first: Int, second: Int): IntArray {
        val ids = IntArray(template.count { it >= 0 } + first + second)
        var size = 0
        for (id in template) {
            when (id) {
                FIRST -> work.first.ids.array.copyInto(ids, size, 0, first).also { size += first }
                SECOND -> work.second.ids.array.copyInto(ids, size, 0, second).also { size += second }
                else -> ids[size++] = id
            }
        }
        return ids
    }

    /** The template around the first tokens of the first text, and tokens `from` to `to - 1` of the second. */
    private fun encoding(template: IntArray, work: Workspace, first: Int, from: Int, to: Int): Encoding {
        val encoding = Encoding(template.count { it >= 0 } + first + to - from)
        var size = 0
        for (id in template) {
            when (id) {
                FIRST -> work.first.copyInto(encoding, size, 0, first, 0).also { size += first }
                SECOND -> work.second.copyInto(encoding, size, from, to, 1).also { size += to - from }
                else -> {
                    encoding.ids[size] = id
                    encoding.words[size] = Encoding.NONE
                    encoding.sequences[size++] = Encoding.NONE
                }
            }
        }
        return encoding
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

    /** The tokens of one text without special tokens around it. Pieces behind the one that reaches `limit` are left out. */
    private fun sequence(text: String, limit: Int, work: Workspace, tokens: Tokens) {
        work.start(text, tokens)
        appendCodePoints(text, work.text)
        written.find(work.text, work.sections)
        for (section in 0 until work.sections.size) {
            if (work.sections.id(section) != Sections.TEXT) {
                addedToken(work.text, work.sections, section, work)
            } else if (!stretch(work.sections.start(section), work.sections.end(section), limit, work)) {
                return
            }
        }
    }

    /** Appends the tokens of a stretch between added tokens. False once there are `limit` of them. */
    private fun stretch(start: Int, end: Int, limit: Int, work: Workspace): Boolean {
        work.normalized.clear()
        work.normalized.addAll(work.text, start, end)
        for (step in normalizer) {
            work.other.clear()
            if (step.run(work.normalized, work.other)) work.swapTexts()
        }
        work.inner.clear()
        normalized.find(work.normalized, work.inner)
        for (section in 0 until work.inner.size) {
            if (work.inner.id(section) != Sections.TEXT) {
                addedToken(work.normalized, work.inner, section, work)
            } else if (!pieces(work.inner.start(section), work.inner.end(section), limit, work)) {
                return false
            }
        }
        return true
    }

    private fun addedToken(text: AlignedText, sections: Sections, section: Int, work: Workspace) {
        work.tokens.add(sections.id(section), sections.start(section), sections.end(section))
        work.place(text, 0, sections.length(section))
    }

    private fun pieces(start: Int, end: Int, limit: Int, work: Workspace): Boolean {
        work.pieces.clear()
        work.pieces.text.addAll(work.normalized, start, end)
        work.pieces.close()
        for (step in splitter) {
            work.otherPieces.clear()
            step.run(work.pieces, work.otherPieces)
            work.swapPieces()
        }
        for (piece in 0 until work.pieces.size) {
            model.append(work.pieces.text.points, work.pieces.start(piece), work.pieces.ends[piece], work.tokens, work.path)
            work.place(work.pieces.text, model.continuationSize)
            if (work.tokens.size >= limit) return false
        }
        return true
    }

    /** Lends buffers that earlier texts have grown, so that a keystroke allocates little more than its ids. */
    private inline fun <T> withWorkspace(use: (Workspace) -> T): T {
        val work = spare.getAndSet(null) ?: Workspace()
        val result = use(work)
        work.end()
        if (work.text.points.size <= KEPT) spare.set(work)
        return result
    }

    companion object {
        /** Tokens that windows share where nobody says: as in transformers' question-answering pipeline. */
        const val LARGEST_STRIDE = 128
        internal const val FIRST = -1
        internal const val SECOND = -2
        private const val KEPT = 1 shl 14 // code points; buffers that a longer text has grown are not held

        /** Reads tokenizer.safetensors. Throws [BundleException] naming a part that this version does not know. */
        fun read(content: ByteArray): Tokenizer = TokenizerReader(TensorFile(content)).read()
    }
}

/** The buffers of one call. */
internal class Workspace {
    private var original = ""
    private var word = 0
    val text = AlignedText()
    val sections = Sections()
    val inner = Sections()
    var normalized = AlignedText()
        private set
    var other = AlignedText()
        private set
    var pieces = Pieces()
        private set
    var otherPieces = Pieces()
        private set
    val path = ViterbiPath()
    val first = Tokens()
    val second = Tokens()
    var tokens = first // of the text that is being tokenized
        private set

    fun start(original: String, tokens: Tokens) {
        this.original = original
        this.tokens = tokens
        word = 0
        tokens.clear()
        text.clear()
        sections.clear()
    }

    /** Says where in the original the newest tokens stand: those of one word, which point into `text`. An added token has a `length`. */
    fun place(text: AlignedText, continuationSize: Int, length: Int = 0) {
        val first = tokens.words.size
        for (i in first until tokens.size) {
            val start = tokens.starts[i]
            val end = tokens.ends[i]
            tokens.words.add(word)
            tokens.lengths.add(if (length > 0) length else end - start + if (i == first) 0 else continuationSize)
            tokens.starts.array[i] = text.place(start)
            tokens.ends.array[i] = endOfPoint(original, text.place(end - 1))
        }
        word++
    }

    /** Lets go of the text; the buffers stay. */
    fun end() {
        original = ""
    }

    fun swapTexts() {
        normalized = other.also { other = normalized }
    }

    fun swapPieces() {
        pieces = otherPieces.also { otherPieces = pieces }
    }
}
