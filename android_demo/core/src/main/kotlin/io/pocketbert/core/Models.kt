/*
 * The two models that turn a piece of text into ids: WordPiece and Unigram.
 *
 * Takes one piece of code points. Returns ids and how far each reaches, exactly those of Hugging Face's tokenizers. Leaves out: everything before
 * (Normalizer.kt, Splitter.kt) and behind (Tokenizer.kt).
 */
package io.pocketbert.core

/** Appends the tokens of a piece, `points[start]` to `points[end - 1]`. */
internal interface Model {
    val unkId: Int

    /** Code points that a token within a word begins with in the vocabulary, and not in the text: those of `##`. */
    val continuationSize: Int

    fun append(points: IntArray, start: Int, end: Int, tokens: Tokens, path: ViterbiPath)
}

/** BERT's model: from the left, always the longest piece of the vocabulary; a word that has a gap is unknown, whole. */
internal class WordPiece(
    private val vocabulary: Trie,
    override val unkId: Int,
    continuation: IntArray, // what pieces inside a word start with: ##
    private val longestWord: Int, // in code points
) : Model {
    override val continuationSize = continuation.size
    private val inside = vocabulary.find(continuation, 0, continuation.size)

    override fun append(points: IntArray, start: Int, end: Int, tokens: Tokens, path: ViterbiPath) {
        val before = tokens.size
        var place = start
        while (place < end && end - start <= longestWord) {
            var node = if (place == start) Trie.ROOT else inside
            var longest = -1
            val from = place
            var i = place
            while (i < end && node != Trie.NONE) {
                node = vocabulary.child(node, points[i++])
                if (node != Trie.NONE && vocabulary.value(node) != Trie.NONE) {
                    longest = vocabulary.value(node)
                    place = i
                }
            }
            if (longest < 0) break
            tokens.add(longest, from, place)
        }
        if (place < end) {
            tokens.removeFrom(before)
            tokens.add(unkId, start, end)
        }
    }
}

/**
 * SentencePiece's Unigram model: the path of pieces with the highest sum of scores (Viterbi). A code point that is no
 * piece is unknown, at a price; neighbouring unknowns become one.
 */
internal class Unigram(private val vocabulary: Trie, private val scores: DoubleArray, override val unkId: Int) : Model {
    override val continuationSize get() = 0
    private val unkScore = scores.min() - UNK_PENALTY

    override fun append(points: IntArray, start: Int, end: Int, tokens: Tokens, path: ViterbiPath) {
        path.reset(end - start)
        for (from in 0 until end - start) extend(points, start, from, end - start, path)
        appendBest(points, start, end - start, tokens, path)
    }

    /** Takes every piece that starts at `from` one step further. */
    private fun extend(points: IntArray, start: Int, from: Int, size: Int, path: ViterbiPath) {
        val score = path.scores[from]
        var single = false
        var node = Trie.ROOT
        for (to in from + 1..size) {
            node = vocabulary.child(node, points[start + to - 1])
            if (node == Trie.NONE) break
            val id = vocabulary.value(node)
            if (id == Trie.NONE) continue
            path.offer(to, from, id, scores[id] + score)
            if (to == from + 1) single = true
        }
        if (!single) path.offer(from + 1, from, unkId, unkScore + score)
    }

    /** Walks back from the end; neighbouring unknowns are one, and are looked up again as one. */
    private fun appendBest(points: IntArray, start: Int, size: Int, tokens: Tokens, path: ViterbiPath) {
        val first = tokens.size
        var to = size
        while (to > 0) {
            var from = path.starts[to]
            if (path.ids[to] != unkId) {
                tokens.add(path.ids[to], start + from, start + to)
            } else {
                while (from > 0 && path.ids[from] == unkId) from = path.starts[from]
                val node = vocabulary.find(points, start + from, start + to)
                val known = node != Trie.NONE && vocabulary.value(node) != Trie.NONE
                tokens.add(if (known) vocabulary.value(node) else unkId, start + from, start + to)
            }
            to = from
        }
        tokens.reverseFrom(first)
    }

    private companion object {
        const val UNK_PENALTY = 10.0 // sentencepiece, unigram_model.cc, kUnkPenalty
    }
}

/** The best path to each place of a piece: its score, where its last step starts, and the id of that step. */
internal class ViterbiPath {
    var scores = DoubleArray(64)
        private set
    var starts = IntArray(64)
        private set
    var ids = IntArray(64)
        private set

    fun reset(size: Int) {
        if (size >= scores.size) {
            scores = DoubleArray(size + 1)
            starts = IntArray(size + 1)
            ids = IntArray(size + 1)
        }
        scores[0] = 0.0
        starts.fill(NOWHERE, 0, size + 1)
        ids[0] = NOWHERE
    }

    /** Keeps a step if it is the first to arrive or better; of equal ones the first, which started furthest left. */
    fun offer(to: Int, from: Int, id: Int, score: Double) {
        if (starts[to] == NOWHERE || score > scores[to]) {
            scores[to] = score
            starts[to] = from
            ids[to] = id
        }
    }

    private companion object {
        const val NOWHERE = -1
    }
}
