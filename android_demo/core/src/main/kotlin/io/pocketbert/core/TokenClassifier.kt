/*
 * From a text to its entities: labels of tokens, grouped.
 *
 * Takes an opened bundle and an engine for one of its artifacts. Returns entities in the order of the text; `findEntities` is the rule
 * alone, that of transformers' token-classification pipeline (BUNDLE.md). Leaves out: threads, see TextClassifier.
 */
package io.pocketbert.core

/** A stretch of a text with the kind of thing that it names. */
data class Entity(
    val label: String, // without B- and I-
    val text: String, // as it is written
    val start: Int, // in UTF-16 units, as strings count them
    val end: Int,
    val score: Float, // mean probability of the labels that made it
)

/** Which token's label a word has. */
enum class Strategy {
    /** That of its first token. */
    FIRST,

    /** Tokens are not put together to words: each has its own. */
    SIMPLE,
}

/** A bundle that finds entities in texts, opened with one engine; safe to share between threads, which take turns at the engine. */
class TokenClassifier private constructor(private val runner: Runner) : OpenedBundle by runner {
    /** Throws [BundleException] for a bundle of another task, or whose tokenizer this version does not read. */
    constructor(bundle: Bundle, artifact: Artifact, engine: Engine) : this(Runner(bundle, artifact, engine, Task.TOKEN_CLASSIFICATION))

    /** The entities of a text. Of a text of more tokens than the bundle takes the end is not looked at. */
    fun entities(text: String, strategy: Strategy = Strategy.FIRST): List<Entity> {
        val encoding = runner.tokenizer.align(text, runner.manifest.maxLength)
        val scores = runner.probabilities(runner.run(encoding.ids))
        val tokenizer = runner.tokenizer
        val continues = if (strategy == Strategy.FIRST) continueWords(text, encoding, tokenizer.unkId, tokenizer.marksContinuation) else null
        return findEntities(text, encoding, scores, runner.manifest.labels, continues)
    }
}

/**
 * By token, whether it goes on with the word of the one before, as transformers guesses it. Where the tokenizer `marks` continuing
 * pieces: if a piece has another length than what it stands for. Else: unless a space is before it or at its start.
 */
internal fun continueWords(text: String, encoding: Encoding, unkId: Int, marks: Boolean) = BooleanArray(encoding.size) {
    val start = encoding.starts[it]
    val inside = when {
        marks -> encoding.lengths[it] != text.codePointCount(start, encoding.ends[it])
        else -> start > 0 && text[start - 1] != ' ' && text.getOrNull(start) != ' '
    }
    inside && encoding.ids[it] != unkId
}

/** Entities by token probabilities, (tokens, labels); with `continues` by those of each word's first token. */
internal fun findEntities(text: String, encoding: Encoding, scores: FloatArray, labels: List<String>, continues: BooleanArray?): List<Entity> {
    val groups = mutableListOf<MutableList<TaggedWord>>()
    for (word in words(encoding, scores, labels, continues)) {
        if (groups.isEmpty() || word.begins || word.kind != groups.last().last().kind) groups.add(mutableListOf())
        groups.last().add(word)
    }
    return groups.map { join(text, it) }.filter { it.label != OUTSIDE }
}

/** A word, or by [Strategy.SIMPLE] a token. */
private class TaggedWord(val label: String, val score: Float, val start: Int, var end: Int) {
    val begins = label.startsWith(BEGINS)
    val kind = if (begins || label.startsWith(GOES_ON)) label.drop(BEGINS.length) else label
}

private fun words(encoding: Encoding, scores: FloatArray, labels: List<String>, continues: BooleanArray?): List<TaggedWord> {
    val words = mutableListOf<TaggedWord>()
    for (token in 0 until encoding.size) {
        if (encoding.sequences[token] == Encoding.NONE) continue
        if (words.isNotEmpty() && continues != null && continues[token]) {
            words.last().end = encoding.ends[token]
            continue
        }
        val best = labels.indices.maxBy { scores[token * labels.size + it] } // of equal ones the first
        words.add(TaggedWord(labels[best], scores[token * labels.size + best], encoding.starts[token], encoding.ends[token]))
    }
    return words
}

private fun join(text: String, words: List<TaggedWord>): Entity {
    val (start, end) = words.first().start to words.last().end
    val score = words.map { it.score.toDouble() }.average().toFloat()
    return Entity(words.first().label.substringAfter('-'), text.substring(start, end), start, end, score)
}

private const val OUTSIDE = "O" // the label of what belongs to no entity
private const val BEGINS = "B-"
private const val GOES_ON = "I-"
