/* The adapter runs the real ExecuTorch: right answers at any length, two programs at once, and errors in words. */
package io.pocketbert.executorch

import io.pocketbert.core.BundleStore
import io.pocketbert.core.Engine
import io.pocketbert.core.EngineException
import io.pocketbert.core.InstalledBundle
import io.pocketbert.core.SelfChecks
import io.pocketbert.host.Host
import org.junit.Assume.assumeTrue
import org.junit.Before
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import kotlin.concurrent.thread
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

private const val THREADS = 2

class ExecuTorchEngineTest {
    @get:Rule
    val scratch = TemporaryFolder()

    @Before
    fun theRealEngineIsHere() = Host.missing("libexecutorch_host.so").let { assumeTrue(it, it == null) }

    private fun installed(name: String): InstalledBundle =
        BundleStore(File(scratch.root, name)).install({ File(Host.bundle(name), it).inputStream() }, "executorch")

    private fun open(installed: InstalledBundle): Engine = ExecuTorchEngine.kind(THREADS).open(installed)

    @Test
    fun theGoldenCasesOfBothDemoBundlesAreAnswered() {
        for (name in Host.BUNDLES) {
            SelfChecks(File(scratch.root, "checks"), "host").open(installed(name), ExecuTorchEngine.kind(THREADS)).use { classifier ->
                assertTrue(classifier.selfCheck() < 0.01f)
                assertEquals("POSITIVE", classifier.classify("what a lovely film").first().label)
                assertEquals("NEGATIVE", classifier.classify("worst app ever!!").first().label)
            }
        }
    }

    @Test
    fun anyLengthUpToTheBundlesIsTaken() {
        val installed = installed("distilbert")
        val manifest = installed.bundle.manifest
        open(installed).use { engine ->
            for (length in listOf(1, 2, 9, manifest.maxLength - 1, manifest.maxLength)) {
                assertEquals(manifest.labels.size, engine.run(IntArray(length) { 5 }).size)
            }
            assertFailsWith<EngineException> { engine.run(IntArray(manifest.maxLength + 1)) }
        }
    }

    @Test
    fun anAnswerStaysAsItIsWhenTheNextOneComes() {
        open(installed("distilbert")).use { engine ->
            val first = engine.run(intArrayOf(2, 5, 3))
            val kept = first.copyOf()
            engine.run(intArrayOf(2, 77, 78, 3))
            assertContentEquals(kept, first)
        }
    }

    @Test
    fun anotherNumberOfThreadsIsRefused() {
        val installed = installed("albert")
        open(installed).use {
            val refusal = assertFailsWith<EngineException> { ExecuTorchEngine.kind(THREADS + 1).open(installed) }
            assertTrue("runs with 2 threads already" in refusal.message!!)
        }
    }

    @Test
    fun aProgramIsLoadedWhileAnotherRuns() {
        val (running, loaded) = Host.BUNDLES.map(::installed)
        open(running).use { engine ->
            val ids = running.bundle.golden().cases.maxBy { it.ids.size }.ids
            val expected = engine.run(ids).toList()
            val loads = thread { repeat(20) { open(loaded).close() } }
            while (loads.isAlive) assertEquals(expected, engine.run(ids).toList())
        }
    }

    @Test
    fun aFileThatIsNoProgramIsRefusedInWords() {
        val installed = installed("albert")
        for (damage in listOf<(File) -> Unit>({ it.writeBytes(ByteArray(0)) }, { it.writeText("not a program".repeat(99)) }, { it.delete() })) {
            damage(installed.file)
            assertTrue("cannot open model.pte" in assertFailsWith<EngineException> { open(installed) }.message!!)
        }
    }

    @Test
    fun aMethodThatIsNotThereIsRefusedInWords() {
        val installed = installed("albert")
        val other = installed.artifact.copy(entry = "backward")
        val refusal = assertFailsWith<EngineException> { ExecuTorchEngine.open(installed.file, other, THREADS) }
        assertTrue("cannot open model.pte" in refusal.message!!)
    }

    @Test
    fun aClosedEngineSaysSo() {
        val engine = open(installed("albert"))
        repeat(2) { engine.close() }
        assertTrue("destroyed" in assertFailsWith<EngineException> { engine.run(intArrayOf(2, 3)) }.message!!)
    }
}
