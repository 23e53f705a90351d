/*
 * From a question and a text to the stretch of the text that answers it.
 *
 * Takes an opened bundle and an engine for one of its artifacts. Returns the best answer; `findAnswer` is the rule alone, that of
 * transformers 4's question-answering pipeline (BUNDLE.md). Leaves out: all other answers, and threads, see TextClassifier.
 */
package io.pocketbert.core

import java.util.Locale

/** A stretch of a text that answers a question. */
data class Answer(
    val text: String, // as it is written
    val start: Int, // in UTF-16 units, as strings count them
    val end: Int,
    val score: Float, // probability of its start times that of its end; equal answers add up, at times to more than 1
)

/** A bundle that answers questions out of texts, opened with one engine; safe to share between threads, which take turns at the engine. */
class QuestionAnswerer private constructor(private val runner: Runner) : OpenedBundle by runner {
    /** Throws [BundleException] for a bundle of another task, or whose tokenizer this version does not read. */
    constructor(bundle: Bundle, artifact: Artifact, engine: Engine) : this(Runner(bundle, artifact, engine, Task.QUESTION_ANSWERING))

    /**
     * The best answer, of at most [maxAnswerLength] tokens and whole words. Null where the text has no token, and with [allowNone]
     * where it is likelier that there is no answer, which a checkpoint must have been trained to say. A long text is read in windows,
     * see [Tokenizer.windows]. Throws [IllegalArgumentException] for a question that leaves no room for the text.
     */
    fun answer(
        question: String,
        text: String,
        stride: Int? = null,
        maxAnswerLength: Int = MAX_ANSWER_LENGTH,
        allowNone: Boolean = false,
    ): Answer? {
        require(maxAnswerLength > 0) { "maxAnswerLength $maxAnswerLength: use 1 or more" }
        val windows = runner.tokenizer.windows(question, text, runner.manifest.maxLength, stride)
        return findAnswer(text, windows, windows.map { runner.run(it.ids) }, maxAnswerLength, allowNone)
    }

    companion object {
        const val MAX_ANSWER_LENGTH = 15 // tokens: transformers' default
    }
}

/** The best answer over all windows, each with its logits, (tokens, 2). */
internal fun findAnswer(text: String, windows: List<Encoding>, logits: List<FloatArray>, maxAnswerLength: Int, allowNone: Boolean): Answer? {
    val found = LinkedHashMap<String, ScoredSpan>() // by what it says, upper or lower case: the first place of several
    var noneScore = Double.POSITIVE_INFINITY
    for ((window, each) in windows.zip(logits)) {
        val scores = answerProbabilities(window, each)
        noneScore = minOf(noneScore, (scores[0] * scores[1]).toDouble())
        for (candidate in candidates(window, scores, maxAnswerLength)) {
            val start = wordStart(window, candidate.start)
            val end = wordEnd(window, candidate.end)
            found.getOrPut(text.substring(start, end).lowercase(Locale.ROOT)) { ScoredSpan(start, end) }.score += candidate.score
        }
    }
    val best = found.values.maxByOrNull { it.score } ?: return null
    if (allowNone && noneScore > best.score) return null
    return Answer(text.substring(best.start, best.end), best.start, best.end, best.score.toFloat())
}

/** First and last token, or start and end in the text. */
private class ScoredSpan(val start: Int, val end: Int, var score: Double = 0.0)

/** (tokens, 2): of start and of end, over the text's tokens and the first special token, which stands for no answer. */
private fun answerProbabilities(window: Encoding, logits: FloatArray): FloatArray {
    val possible = BooleanArray(window.size) { window.sequences[it] == SECOND || it == 0 }
    return softmax(FloatArray(logits.size) { if (possible[it / 2]) logits[it] else MASKED }, 2, 1, 2)
}

/** The best spans of the text's tokens, of equal ones the first. */
private fun candidates(window: Encoding, scores: FloatArray, maxAnswerLength: Int): List<ScoredSpan> {
    val tokens = window.sequences.indices.filter { window.sequences[it] == SECOND }
    val spans = tokens.flatMapIndexed { i, first ->
        tokens.subList(i, minOf(i + maxAnswerLength, tokens.size)).map { last -> ScoredSpan(first, last, (scores[2 * first] * scores[2 * last + 1]).toDouble()) }
    }
    return spans.sortedByDescending { it.score }.take(CANDIDATES)
}

/** Where the word of a token starts and ends in the text, as far as the window shows it. */
private fun wordStart(window: Encoding, token: Int): Int =
    window.starts[window.words.indices.first { window.sequences[it] == SECOND && window.words[it] == window.words[token] }]

private fun wordEnd(window: Encoding, token: Int): Int =
    window.ends[window.words.indices.last { window.sequences[it] == SECOND && window.words[it] == window.words[token] }]

private const val SECOND = 1 // the text, behind the question
private const val CANDIDATES = 12 // of a window: as many as transformers looks at for one answer, whole words being asked for
private const val MASKED = -10000f // the logit of what can be no part of an answer
