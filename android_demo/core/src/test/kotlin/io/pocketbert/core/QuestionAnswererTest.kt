/* Answers are those of transformers 4's pipeline on the same logits, over all windows of a long text. */
package io.pocketbert.core

import org.junit.Test
import kotlin.math.abs
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNull
import kotlin.test.assertTrue

class QuestionAnswererTest {
    private val golden = """{"cases": [{"text": "good", "text_pair": "film", "input_ids": [2, 4, 3, 6, 3],
        "oracle": {"int8": [[0, 0], [0, 0], [0, 0], [5, 5], [0, 0]]}}]}"""

    /** Says that the answer starts at one id and ends at another, in the text behind the question; start before end in memory. */
    private fun engine(start: Int, end: Int) = FakeEngine { ids ->
        FloatArray(2 * ids.size) { if (it >= 3 && ids[it % ids.size] == (if (it < ids.size) start else end) && it % ids.size >= 3) 5f else 0f }
    }

    private fun answerer(engine: Engine): QuestionAnswerer {
        val bundle = Bundle.open(answerBundle(golden))
        return QuestionAnswerer(bundle, bundle.manifest.artifact("tflite"), engine)
    }

    @Test
    fun anAnswerIsWholeWordsOfTheText() {
        val answer = answerer(engine(5, 7)).answer("good", "BAD  films")!! // [CLS] good [SEP] bad film ##s [SEP]
        assertEquals(listOf("BAD  films", 0, 10), listOf(answer.text, answer.start, answer.end))
        assertEquals("films", answerer(engine(6, 6)).answer("good", "BAD  films")!!.text)
    }

    @Test
    fun aLongTextIsReadInWindows() {
        val engine = engine(5, 5)
        val text = "film film film film film film bad film"
        assertEquals(30, answerer(engine).answer("good", text, stride = 1)!!.start)
        assertEquals(3, engine.seen.size)
        assertTrue("leaves no room" in assertFailsWith<IllegalArgumentException> { answerer(engine).answer("good ".repeat(9), text) }.message!!)
    }

    @Test
    fun noTextHasNoAnswerAndNeitherHasOneThatIsLikelierWithout() {
        assertNull(answerer(engine(5, 5)).answer("good", " "))
        val none = answerer(FakeEngine { ids -> FloatArray(2 * ids.size) { if (it % ids.size == 0) 5f else 0f } })
        assertNull(none.answer("good", "film", allowNone = true))
        assertEquals("film", none.answer("good", "film")!!.text)
    }

    @Test
    fun anEngineThatAnswersTheGoldenCasesIsTrusted() {
        assertEquals(0f, answerer(engine(6, 6)).selfCheck())
        assertTrue("is computed wrongly" in assertFailsWith<EngineException> { answerer(engine(6, 3)).selfCheck() }.message!!)
    }

    @Test
    fun answersAreThoseOfTheFrozenCases() {
        val cases = contract("answer_cases.jsonl").map { AnswerCase(Fields(it)) }
        assertEquals(emptyList(), cases.flatMap { it.wrong() })
        assertTrue(cases.sumOf { it.asked.size } > 300, "${cases.sumOf { it.asked.size }} answers")
    }

    /** A question and a text, the windows of the text with their logits, and what is answered by several settings. */
    private class AnswerCase(line: Fields) {
        private val question = line.text("question")
        private val text = line.text("text")
        private val questionTokens = line.int("question_tokens")
        private val tokens = line.list("tokens").map(::numbers)
        private val windows = line.list("windows").map(::numbers).map { (from, to) -> window(tokens.subList(from, to)) }
        private val logits = line.rows("start").zip(line.rows("end")) { start, end -> FloatArray(2 * start.size) { (if (it % 2 == 0) start else end)[it / 2] } }
        val asked = line.list("answers").map { it as List<*> }

        fun wrong(): List<String> = asked.mapNotNull { (longest, allowNone, right) ->
            val found = findAnswer(text, windows, logits, (longest as Long).toInt(), allowNone as Boolean)
            if (same(found, right as List<*>?)) null else "$question, $longest, $allowNone: $found, not $right"
        }

        private fun same(found: Answer?, right: List<*>?): Boolean {
            if (found == null || right == null) return found == null && right == null
            val (start, end) = right.take(2).map { text.offsetByCodePoints(0, (it as Long).toInt()) }
            return found.start == start && found.end == end && found.text == text.substring(start, end) &&
                abs(found.score - (right[2] as Number).toDouble()) < NEAR
        }

        private fun numbers(row: Any?) = (row as List<*>).map { (it as Long).toInt() }

        /** A special token, the question, a special token, the text's, a special token. */
        private fun window(tokens: List<List<Int>>) = Encoding(questionTokens + tokens.size + 3).apply {
            sequences.fill(Encoding.NONE)
            sequences.fill(0, 1, 1 + questionTokens)
            ids[0] = CLS
            tokens.forEachIndexed { i, (start, end, word) ->
                val place = questionTokens + 2 + i
                sequences[place] = 1
                starts[place] = text.offsetByCodePoints(0, start)
                ends[place] = text.offsetByCodePoints(0, end)
                words[place] = word
            }
        }

        private companion object {
            const val NEAR = 1e-5
        }
    }
}
