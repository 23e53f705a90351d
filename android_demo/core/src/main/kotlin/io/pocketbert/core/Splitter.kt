/*
 * The steps of a pre-tokenizer: a text becomes pieces that are tokenized each for itself.
 *
 * Takes pieces. Returns more pieces, never an empty one. Leaves out: which code points split, which is in the tables.
 */
package io.pocketbert.core

/** Pieces of text, one behind the other. */
internal class Pieces {
    val text = AlignedText()
    val ends = IntList()
    val size get() = ends.size

    fun start(piece: Int) = if (piece == 0) 0 else ends[piece - 1]

    /** Ends the piece that was being written, unless it is empty. */
    fun close() {
        if (text.size > start(ends.size)) ends.add(text.size)
    }

    fun clear() {
        text.clear()
        ends.clear()
    }
}

/** Splits pieces: reads `input`, appends to `output`, which is empty. */
internal fun interface SplitterStep {
    fun run(input: Pieces, output: Pieces)
}

/** Splits at code points that are taken out (white space) or stand alone (punctuation). */
internal class SplitStep(private val classes: CodePointTable) : SplitterStep {
    override fun run(input: Pieces, output: Pieces) {
        for (piece in 0 until input.size) {
            var taken = input.start(piece) // up to here the piece is accounted for
            for (i in taken until input.ends[piece]) {
                val kind = classes[input.text[i]]
                if (kind == INSIDE) continue
                output.text.addAll(input.text, taken, i)
                output.close()
                if (kind == ISOLATED) output.text.add(input.text[i], input.text.place(i))
                output.close()
                taken = i + 1
            }
            output.text.addAll(input.text, taken, input.ends[piece])
            output.close()
        }
    }

    private companion object {
        const val INSIDE = 0
        const val ISOLATED = 2 // 1: taken out
    }
}

/** SentencePiece's way with spaces: each becomes `replacement`, which is put in front too and starts a piece. */
internal class MetaspaceStep(private val replacement: Int, private val prepend: Boolean, private val split: Boolean) :
    SplitterStep {
    override fun run(input: Pieces, output: Pieces) {
        for (piece in 0 until input.size) {
            val start = input.start(piece)
            if (prepend && replaced(input.text[start]) != replacement) output.text.add(replacement, input.text.place(start))
            for (i in start until input.ends[piece]) {
                val point = replaced(input.text[i])
                if (split && point == replacement) output.close()
                output.text.add(point, input.text.place(i))
            }
            output.close()
        }
    }

    private fun replaced(point: Int) = if (point == SPACE) replacement else point

    private companion object {
        const val SPACE = 0x20
    }
}
