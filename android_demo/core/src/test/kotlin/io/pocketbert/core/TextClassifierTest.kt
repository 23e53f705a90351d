/* A classifier pads, scores and orders as BUNDLE.md says, proves an engine, and drops what was overtaken. */
package io.pocketbert.core

import org.junit.Test
import java.util.concurrent.CountDownLatch
import java.util.concurrent.FutureTask
import java.util.concurrent.TimeUnit
import kotlin.concurrent.thread
import kotlin.math.abs
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertIs
import kotlin.test.assertNull
import kotlin.test.assertTrue

private const val SECONDS = 10L // far more than any of this takes

internal class FakeEngine(private val answer: (IntArray) -> FloatArray) : Engine {
    val seen = mutableListOf<List<Int>>()
    var closed = false

    override fun run(inputIds: IntArray): FloatArray {
        seen.add(inputIds.toList())
        return answer(inputIds)
    }

    override fun close() {
        closed = true
    }
}

class TextClassifierTest {
    private val golden = """{"cases": [{"text": "good film", "input_ids": [2, 4, 6, 3], "logits": [0, 0, 0],
        "oracle": {"int8": [1.0, 2.0, 0.5], "fp16": [9, 9, 9]}}]}"""

    private fun classifier(engine: Engine, fake: FakeBundle = FakeBundle(golden)): TextClassifier {
        val bundle = Bundle.open(fake)
        return TextClassifier(bundle, bundle.manifest.artifact("tflite"), engine)
    }

    private fun near(expected: Double, found: Float) = assertTrue(abs(expected - found) < 1e-6, "$expected is not $found")

    @Test
    fun idsArePaddedToTheNextLength() {
        val engine = FakeEngine { floatArrayOf(0f, 0f, 0f) }
        val classifier = classifier(engine)
        listOf("good", "good good", "good good good", "good ".repeat(20)).forEach(classifier::classify)
        assertEquals(listOf(listOf(2, 4, 3, 0), listOf(2, 4, 4, 3), listOf(2, 4, 4, 4, 3, 0, 0, 0)), engine.seen.take(3))
        assertEquals(listOf(2, 4, 4, 4, 4, 4, 4, 3), engine.seen.last())
    }

    @Test
    fun anArtifactOfAnyLengthIsNotPadded() {
        val engine = FakeEngine { floatArrayOf(0f, 0f, 0f) }
        val fake = FakeBundle(golden).apply { manifest = manifest.replace("\"any_length\": false", "\"any_length\": true") }
        classifier(engine, fake).classify("good")
        assertEquals(listOf(listOf(2, 4, 3)), engine.seen)
    }

    @Test
    fun labelsComeBestFirstWithTheSoftmax() {
        val found = classifier(FakeEngine { floatArrayOf(1f, 1000f, 1000f) }).classify("good")
        assertEquals(listOf("YES", "PERHAPS", "NO"), found.map { it.label }, "equal scores keep the labels' order")
        listOf(0.5, 0.5, 0.0).zip(found).forEach { (expected, prediction) -> near(expected, prediction.score) }
    }

    @Test
    fun severalLabelsHaveASigmoidEach() {
        val fake = FakeBundle(golden).apply { manifest = manifest.replace("\"multi_label\": false", "\"multi_label\": true") }
        val found = classifier(FakeEngine { floatArrayOf(0f, -1000f, 2f) }, fake).classify("good")
        assertEquals(listOf("PERHAPS", "NO", "YES"), found.map { it.label })
        listOf(0.880797, 0.5, 0.0).zip(found).forEach { (expected, prediction) -> near(expected, prediction.score) }
    }

    @Test
    fun aSecondTextIsTakenWhereTheBundleTakesTwo() {
        val engine = FakeEngine { floatArrayOf(0f, 0f, 0f) }
        val pairs = FakeBundle(golden).apply { manifest = manifest.replace("\"multi_label\"", "\"pairs\": true, \"multi_label\"") }
        classifier(engine, pairs).classify("good", "bad film")
        assertEquals(listOf(2, 4, 3, 5, 6, 3, 0, 0), engine.seen.single())
        val refusal = assertFailsWith<BundleException> { classifier(engine).classify("good", "bad film") }
        assertEquals("the bundle takes one text at a time: export its checkpoint with --pairs", refusal.message)
    }

    @Test
    fun aBundleOfAnotherTaskSaysWhoOpensIt() {
        val refusal = assertFailsWith<BundleException> { classifier(FakeEngine { floatArrayOf() }, entityBundle()) }
        assertEquals("the bundle is for token-classification: open it with TokenClassifier", refusal.message)
    }

    @Test
    fun anEngineThatAnswersTheGoldenCasesIsTrusted() {
        val gap = classifier(FakeEngine { floatArrayOf(1f, 2.1f, 0.5f) }).selfCheck()
        assertTrue(gap > 0 && gap < 0.05f)
    }

    @Test
    fun anEngineThatComputesSomethingElseIsNot() {
        val wrong = assertFailsWith<EngineException> { classifier(FakeEngine { floatArrayOf(1f, 1f, 1f) }).selfCheck() }
        assertTrue("model.tflite is computed wrongly" in wrong.message!!)
        assertFailsWith<EngineException> { classifier(FakeEngine { floatArrayOf(1f, Float.NaN, 1f) }).selfCheck() }
        assertFailsWith<EngineException> { classifier(FakeEngine { floatArrayOf(1f, 1f) }).selfCheck() }
    }

    @Test
    fun otherIdsThanAtExportAreAnError() {
        val fake = FakeBundle(golden.replace("[2, 4, 6, 3]", "[2, 4, 5, 3]"))
        val wrong = assertFailsWith<EngineException> { classifier(FakeEngine { floatArrayOf(1f, 2f, 0.5f) }, fake).selfCheck() }
        assertTrue("other ids for 'good film'" in wrong.message!!)
        assertFailsWith<EngineException> { classifier(FakeEngine { floatArrayOf(1f, 2f, 0.5f) }, FakeBundle()).selfCheck() }
    }

    /** An engine that waits in its first run until `release` is counted down. */
    private class Gate {
        val entered = CountDownLatch(1)
        val release = CountDownLatch(1)
        val engine = FakeEngine { ids ->
            if (entered.count > 0) {
                entered.countDown()
                release.await()
            }
            floatArrayOf(0f, if (4 in ids) 5f else -5f, 0f)
        }
    }

    /** Classifies on a thread of its own, which has reached the engine or waits for it when this returns. */
    private fun later(classifier: TextClassifier, gate: Gate, text: String): FutureTask<List<Prediction>?> {
        val answer = FutureTask { classifier.classifyNewest(text) }
        val worker = thread { answer.run() }
        gate.entered.await()
        while (worker.state != Thread.State.WAITING) Thread.sleep(1)
        return answer
    }

    @Test
    fun aNewerKeystrokeOvertakesThoseBefore() {
        val gate = Gate()
        val classifier = classifier(gate.engine)
        val answers = listOf("bad", "bad film", "good film", "good").map { later(classifier, gate, it) }
        gate.release.countDown()
        val found = answers.map { it.get(SECONDS, TimeUnit.SECONDS)?.first()?.label }
        assertEquals(listOf(null, null, null, "YES"), found)
        assertEquals(listOf(listOf(2, 5, 3, 0), listOf(2, 4, 3, 0)), gate.engine.seen, "those that waited were not run")
    }

    @Test
    fun aTextThatNothingOvertakesIsAnswered() {
        val classifier = classifier(FakeEngine { floatArrayOf(0f, 5f, 0f) })
        assertEquals("YES", classifier.classifyNewest("good")!!.first().label)
        assertEquals("YES", classifier.classifyNewest("good")!!.first().label)
    }

    @Test
    fun cancelDropsWhatIsUnderWay() {
        val gate = Gate()
        val classifier = classifier(gate.engine)
        val answer = later(classifier, gate, "good")
        classifier.cancel()
        gate.release.countDown()
        assertNull(answer.get(SECONDS, TimeUnit.SECONDS))
    }

    @Test
    fun anInterruptEndsTheWait() {
        val gate = Gate()
        val classifier = classifier(gate.engine)
        val running = later(classifier, gate, "good")
        var problem: Throwable? = null
        val waiting = thread { problem = runCatching { classifier.classifyNewest("bad") }.exceptionOrNull() }
        while (waiting.state != Thread.State.WAITING) Thread.sleep(1)
        waiting.interrupt()
        waiting.join()
        assertIs<InterruptedException>(problem)
        gate.release.countDown()
        running.get(SECONDS, TimeUnit.SECONDS)
    }

    @Test
    fun closingClosesTheEngine() {
        val engine = FakeEngine { floatArrayOf(0f, 0f, 0f) }
        classifier(engine).close()
        assertTrue(engine.closed)
    }

    @Test
    fun scoresDoNotOverflow() {
        assertContentEquals(floatArrayOf(1f, 0f), softmax(floatArrayOf(1e30f, -1e30f)))
        assertContentEquals(floatArrayOf(1f, 0f), sigmoid(floatArrayOf(1e30f, -1e30f)))
    }
}
