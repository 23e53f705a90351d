/*
 * The tokens of a text, each with where it stands in it.
 *
 * Takes nothing; a Tokenizer makes it. Returns one number for each token in each array, special tokens included. Leaves out:
 * what the tokens mean to a task (TokenClassifier, QuestionAnswerer).
 */
package io.pocketbert.core

/**
 * The tokens of one text, or of two put together. What Hugging Face's `Encoding` holds, with offsets in UTF-16 units, as strings
 * have them here.
 */
class Encoding internal constructor(size: Int) {
    val ids = IntArray(size)

    /** Where each token starts in the text that it is of, and where it ends; 0 and 0 for special tokens around texts. */
    val starts = IntArray(size)
    val ends = IntArray(size)

    /** Which word of its text each token belongs to, counted from 0; [NONE] for special tokens around texts. */
    val words = IntArray(size)

    /** 0 for tokens of the first text, 1 for those of the second; [NONE] for special tokens around texts. */
    val sequences = IntArray(size)

    /** Code points of each token as the vocabulary spells it, `##` included; 0 for special tokens around texts. */
    val lengths = IntArray(size)
    val size get() = ids.size

    companion object {
        const val NONE = -1
    }
}

/** Tokens of one text while it is tokenized. */
internal class Tokens {
    val ids = IntList()
    val starts = IntList()
    val ends = IntList()
    val words = IntList()
    val lengths = IntList()
    val size get() = ids.size

    /** Adds a token of a piece that begins at `start` and ends before `end`, in code points, until [Tokenizer] says where in the text. */
    fun add(id: Int, start: Int, end: Int) {
        ids.add(id)
        starts.add(start)
        ends.add(end)
    }

    fun removeFrom(first: Int) {
        ids.resize(first)
        starts.resize(first)
        ends.resize(first)
    }

    /** Turns round the tokens from `first` on. */
    fun reverseFrom(first: Int) {
        ids.array.reverse(first, size)
        starts.array.reverse(first, size)
        ends.array.reverse(first, size)
    }

    /** Copies tokens `from` to `to - 1` into an encoding, from `place` on. */
    fun copyInto(encoding: Encoding, place: Int, from: Int, to: Int, sequence: Int) {
        ids.array.copyInto(encoding.ids, place, from, to)
        starts.array.copyInto(encoding.starts, place, from, to)
        ends.array.copyInto(encoding.ends, place, from, to)
        words.array.copyInto(encoding.words, place, from, to)
        lengths.array.copyInto(encoding.lengths, place, from, to)
        encoding.sequences.fill(sequence, place, place + to - from)
    }

    fun clear() {
        removeFrom(0)
        words.clear()
        lengths.clear()
    }
}
