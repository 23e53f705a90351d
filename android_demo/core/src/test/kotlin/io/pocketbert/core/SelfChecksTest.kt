/* An engine proves itself once; what it proved is kept for exactly this artifact, version and device. */
package io.pocketbert.core

import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertIs
import kotlin.test.assertNull
import kotlin.test.assertTrue

private const val GOLDEN = """{"cases": [{"text": "good film", "input_ids": [2, 4, 6, 3], "oracle": {"int8": [1.0, 2.0, 0.5]}}]}"""

class SelfChecksTest {
    @get:Rule
    val scratch = TemporaryFolder()

    private val records by lazy { File(scratch.root, "checks") }
    private val installed by lazy { BundleStore(File(scratch.root, "store")).install(FakeBundle(GOLDEN), "tflite") }
    private var runs = 0
    private var closed = 0

    private fun kind(version: String = "1", answer: () -> FloatArray) = EngineKind("tflite", version) {
        object : Engine {
            override fun run(inputIds: IntArray): FloatArray = answer().also { runs++ }

            override fun close() {
                closed++
            }
        }
    }

    private val right = kind { floatArrayOf(1f, 2.1f, 0.5f) }
    private val wrong = kind { floatArrayOf(2f, 1f, 0.5f) }

    private fun checks(device: String = "phone") = SelfChecks(records, device)

    @Test
    fun anEngineThatPassedIsNotAskedAgain() {
        assertNull(checks().outcome(installed, right))
        repeat(3) { checks().open(installed, right) }
        assertEquals(1, runs)
        val gap = assertIs<Outcome.Passed>(checks().outcome(installed, right)).gap
        assertTrue(gap > 0.01f && gap < 0.05f, "$gap")
    }

    @Test
    fun anEngineThatFailedIsNeverOpenedAgainAndSaysWhy() {
        val first = assertFailsWith<EngineException> { checks().open(installed, wrong) }.message!!
        assertTrue("model.tflite is computed wrongly here" in first)
        val opens = EngineKind("tflite", "1") { throw AssertionError("it was opened") }
        assertEquals(first, assertFailsWith<EngineException> { checks().open(installed, opens) }.message)
        assertEquals(Outcome.Failed(first), checks().outcome(installed, wrong))
        assertEquals(1, closed)
    }

    @Test
    fun anotherVersionDeviceOrBundleIsCheckedAnew() {
        checks().open(installed, right)
        checks().open(installed, kind("2") { floatArrayOf(1f, 2f, 0.5f) })
        checks("another").open(installed, right)
        val other = FakeBundle(GOLDEN.replace("0.5]", "0.51]"))
        checks().open(BundleStore(File(scratch.root, "other")).install(other, "tflite"), right)
        assertEquals(4, runs)
    }

    @Test
    fun anEngineThatCannotBeOpenedMayTryAgain() {
        val absent = EngineKind("tflite", "1") { throw EngineException("no library") }
        repeat(3) { assertFailsWith<EngineException> { checks().open(installed, absent) } }
        assertNull(checks().outcome(installed, absent))
        checks().open(installed, right)
    }

    /** Ends the process in the middle of a check: nothing after it runs, so the record stays as it was then. */
    private fun crash() {
        lateinit var left: Pair<File, String>
        val crashing = kind { throw IllegalStateException().also { left = records.listFiles()!!.single().let { it to it.readText() } } }
        assertFailsWith<IllegalStateException> { checks().open(installed, crashing) }
        left.let { (record, text) -> record.writeText(text) }
    }

    @Test
    fun anEngineThatTookTheAppDownTwiceIsNotUsed() {
        repeat(2) { crash() }
        val refusal = assertFailsWith<EngineException> { checks().open(installed, right) }
        assertTrue("ended the app 2 times while it was checked" in refusal.message!!)
        assertEquals(0, runs)
    }

    @Test
    fun anAppThatWasClosedOnceDuringACheckChecksAgain() {
        crash()
        checks().open(installed, right)
        assertIs<Outcome.Passed>(checks().outcome(installed, right))
    }

    @Test
    fun aRecordThatCannotBeReadIsNoRecord() {
        checks().open(installed, right)
        records.listFiles()!!.single().writeText("passed")
        checks().open(installed, right)
        assertEquals(2, runs)
    }

    @Test
    fun whereNothingCanBeKeptTheCheckStillDecides() {
        scratch.newFile("checks")
        checks().open(installed, right)
        assertFailsWith<EngineException> { checks().open(installed, wrong) }
    }

    @Test
    fun theBundleSaysHowFarAProbabilityMayBeOff() {
        val strict = FakeBundle(GOLDEN.replaceFirst("{", """{"tolerance": 0.001, """))
        val bundle = BundleStore(File(scratch.root, "strict")).install(strict, "tflite")
        assertEquals(0.001f, bundle.bundle.golden().tolerance)
        assertFailsWith<EngineException> { checks().open(bundle, right) }
        assertEquals(0.05f, installed.bundle.golden().tolerance)
    }
}
