/* Entities are those of transformers' pipeline on the same logits; padding has none. */
package io.pocketbert.core

import org.junit.Test
import kotlin.math.abs
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

private const val NEAR = 1e-5 // BUNDLE.md; scores are frozen with six decimals

class TokenClassifierTest {
    private val golden = """{"cases": [{"text": "good film", "input_ids": [2, 4, 6, 3],
        "oracle": {"int8": [[5, 0, 0], [0, 5, 0], [0, 0, 5], [5, 0, 0]]}}]}"""

    /** Answers the first ids with these labels, all others with B-FILM. */
    private fun engine(vararg labels: Int) = FakeEngine { ids -> FloatArray(3 * ids.size) { if (it % 3 == labels.getOrElse(it / 3) { 1 }) 5f else 0f } }

    private fun classifier(engine: Engine): TokenClassifier {
        val bundle = Bundle.open(entityBundle(golden))
        return TokenClassifier(bundle, bundle.manifest.artifact("tflite"), engine)
    }

    @Test
    fun tokensOfOneKindAreAnEntityAndPaddingIsNone() {
        val found = classifier(engine(1, 0, 1, 2, 1)).entities("bad GOOD films") // [CLS] bad good film ##s [SEP], and two of padding
        assertEquals(listOf(Entity("FILM", "GOOD films", 4, 14, found[0].score)), found)
        assertTrue(abs(found[0].score - 0.986703) < NEAR)
    }

    @Test
    fun aWordHasTheLabelOfItsFirstTokenUnlessEachTokenIsAsked() {
        val classifier = classifier(engine(0, 1, 1, 0))
        assertEquals(listOf("films"), classifier.entities("films").map { it.text })
        assertEquals(listOf("film", "s"), classifier.entities("films", Strategy.SIMPLE).map { it.text })
    }

    @Test
    fun anEngineThatAnswersTheGoldenCasesIsTrusted() {
        assertEquals(0f, classifier(engine(0, 1, 2, 0)).selfCheck())
        assertTrue("is computed wrongly" in assertFailsWith<EngineException> { classifier(engine(0, 1, 1, 0)).selfCheck() }.message!!)
        assertTrue("3 numbers, not 12" in assertFailsWith<EngineException> { classifier(FakeEngine { FloatArray(3) }).selfCheck() }.message!!)
    }

    @Test
    fun entitiesAreThoseOfTheFrozenCases() {
        val lines = contract("entity_cases.jsonl")
        val labels = Fields(lines[0]).list("labels").map { list -> (list as List<*>).map { it as String } }
        val cases = lines.drop(1).map { EntityCase(it as List<*>) }
        val wrong = cases.filterNot { it.isRight(labels[it.labels]) }
        assertEquals(emptyList(), wrong.map { it.text })
        assertTrue(cases.size > 100, "${cases.size} cases")
    }

    /** Number of labels, text, whether pieces are marked, tokens, logits, and the entities by both strategies. */
    private class EntityCase(row: List<*>) {
        val labels = (row[0] as Long).toInt()
        val text = row[1] as String
        private val marks = row[2] as Boolean
        private val encoding = encoding(text, (row[3] as List<*>).map { it as List<*> })
        private val logits = (row[4] as List<*>).flatMap { it as List<*> }.map { (it as Number).toFloat() }.toFloatArray()
        private val expected = listOf(row[5], row[6]).map { it as List<*> }

        fun isRight(labels: List<String>): Boolean {
            val scores = softmax(logits, encoding.size, labels.size, 1)
            val strategies = listOf(continueWords(text, encoding, UNKNOWN, marks), null)
            return strategies.zip(expected).all { (continues, right) -> same(findEntities(text, encoding, scores, labels, continues), right) }
        }

        private fun same(found: List<Entity>, right: List<*>) = found.size == right.size && found.zip(right).all { (entity, row) ->
            val (label, start, end, score) = row as List<*>
            val place = listOf(start, end).map { text.offsetByCodePoints(0, (it as Long).toInt()) }
            entity.label == label && listOf(entity.start, entity.end) == place && entity.text == text.substring(place[0], place[1]) &&
                abs(entity.score - (score as Number).toDouble()) < NEAR
        }

        /** Tokens as piece, start and end in code points, 1 for a special one, 1 for an unknown one. */
        private fun encoding(text: String, tokens: List<List<*>>) = Encoding(tokens.size).apply {
            tokens.forEachIndexed { i, (piece, start, end, special, unknown) ->
                ids[i] = if (unknown == 1L) UNKNOWN else 0
                starts[i] = text.offsetByCodePoints(0, (start as Long).toInt())
                ends[i] = text.offsetByCodePoints(0, (end as Long).toInt())
                sequences[i] = if (special == 1L) Encoding.NONE else 0
                lengths[i] = (piece as String).run { codePointCount(0, length) }
            }
        }
    }

    private companion object {
        const val UNKNOWN = 1
    }
}
