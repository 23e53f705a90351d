/*
 * The steps of a pre-tokenizer: a text becomes pieces that are tokenized each for itself.
 *
 * Takes pieces. Gives more pieces, never an empty one. Leaves out: which code points split, which is in the tables.
 */
package io.pocketbert.core

/** Pieces of text, one behind the other. */
internal class Pieces {
    val points = IntList()
    val ends = IntList()
    val size get() = ends.size

    fun start(piece: Int) = if (piece == 0) 0 else ends[piece - 1]

    /** Ends the piece that was being written, unless it is empty. */
    fun close() {
        if (points.size > start(ends.size)) ends.add(points.size)
    }

    fun clear() {
        points.clear()
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
            for (i in input.start(piece) until input.ends[piece]) {
                val kind = classes[input.points[i]]
                if (kind != INSIDE) output.close()
                if (kind != REMOVED) output.points.add(input.points[i])
                if (kind == ISOLATED) output.close()
            }
            output.close()
        }
    }

    private companion object {
        const val INSIDE = 0
        const val REMOVED = 1
        const val ISOLATED = 2
    }
}

/** SentencePiece's way with spaces: each becomes `replacement`, which is put in front too and starts a piece. */
internal class MetaspaceStep(private val replacement: Int, private val prepend: Boolean, private val split: Boolean) :
    SplitterStep {
    override fun run(input: Pieces, output: Pieces) {
        for (piece in 0 until input.size) {
            val start = input.start(piece)
            if (prepend && replaced(input.points[start]) != replacement) output.points.add(replacement)
            for (i in start until input.ends[piece]) {
                val point = replaced(input.points[i])
                if (split && point == replacement) output.close()
                output.points.add(point)
            }
            output.close()
        }
    }

    private fun replaced(point: Int) = if (point == SPACE) replacement else point

    private companion object {
        const val SPACE = 0x20
    }
}
