/* The adapter runs the real LiteRT: right answers, every signature, a weight cache that is kept, and errors in words. */
package io.pocketbert.litert

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
import java.io.RandomAccessFile
import kotlin.concurrent.thread
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotEquals
import kotlin.test.assertTrue

private const val THREADS = 2

class LiteRtEngineTest {
    @get:Rule
    val scratch = TemporaryFolder()

    private val caches by lazy { File(scratch.root, "caches") }

    @Before
    fun theRealEngineIsHere() = Host.missing("libLiteRt.so").let { assumeTrue(it, it == null) }

    private fun installed(name: String): InstalledBundle =
        BundleStore(File(scratch.root, name)).install({ File(Host.bundle(name), it).inputStream() }, "tflite")

    private fun open(installed: InstalledBundle, cache: File = caches): Engine = LiteRtEngine.kind(THREADS, cache).open(installed)

    private fun InstalledBundle.ids(length: Int) = IntArray(length) { bundle.manifest.padId }.also { ids ->
        val golden = bundle.golden().cases.first { it.ids.size <= length }.ids
        golden.copyInto(ids)
    }

    @Test
    fun theGoldenCasesOfBothDemoBundlesAreAnswered() {
        for (name in Host.BUNDLES) {
            SelfChecks(File(scratch.root, "checks"), "host").open(installed(name), LiteRtEngine.kind(THREADS, caches)).use { classifier ->
                assertTrue(classifier.selfCheck() < 0.01f)
                assertEquals("POSITIVE", classifier.classify("what a lovely film").first().label)
                assertEquals("NEGATIVE", classifier.classify("worst app ever!!").first().label)
            }
        }
    }

    @Test
    fun everyLengthOfTheManifestHasItsSignatureAndPaddingMovesNothing() {
        val installed = installed("distilbert")
        open(installed).use { engine ->
            val short = installed.bundle.manifest.lengths.first()
            val expected = engine.run(installed.ids(short))
            for (length in installed.bundle.manifest.lengths) {
                engine.run(installed.ids(short).copyOf(length)).forEachIndexed { i, logit -> assertEquals(expected[i], logit, 1e-3f) }
            }
        }
    }

    @Test
    fun anotherNumberOfIdsIsRefused() {
        open(installed("albert")).use { engine ->
            assertTrue("takes no 9 ids" in assertFailsWith<EngineException> { engine.run(IntArray(9)) }.message!!)
        }
    }

    @Test
    fun theWeightsArePackedOnceForAllThatOpenTheArtifact() {
        val installed = installed("distilbert")
        open(installed).close()
        val cache = caches.listFiles()!!.single()
        assertTrue(cache.name.startsWith(installed.artifact.files[0].sha256.take(16)) && "litert" in cache.name, cache.name)
        assertTrue(cache.length() > 100_000)
        val made = cache.lastModified()
        Thread.sleep(20)
        open(installed).use { first -> open(installed).use { assertEquals(first.run(installed.ids(8)).toList(), it.run(installed.ids(8)).toList()) } }
        assertEquals(listOf(cache.name to made), caches.listFiles()!!.map { it.name to it.lastModified() })
    }

    @Test
    fun aCacheThatWasCutOffIsMadeAnew() {
        val installed = installed("distilbert")
        val expected = open(installed).use { it.run(installed.ids(8)).toList() }
        val cache = caches.listFiles()!!.single()
        val whole = cache.length()
        for (left in listOf(whole - 1, whole - 1000, whole / 2, 4096, 100, 1, 0)) {
            RandomAccessFile(cache, "rw").use { it.setLength(left) }
            assertEquals(expected, open(installed).use { it.run(installed.ids(8)).toList() })
            assertEquals(listOf(whole), caches.listFiles()!!.map { it.length() }, "$left of $whole bytes were left")
        }
    }

    @Test
    fun whatAKillLeftIsRemovedAndNeverUsed() {
        val installed = installed("distilbert")
        open(installed).close()
        val cache = caches.listFiles()!!.single()
        cache.renameTo(File(caches, "${cache.name}77.part"))
        open(installed).close()
        assertEquals(listOf(cache.name), caches.list()!!.toList())
    }

    @Test
    fun artifactsHaveCachesOfTheirOwn() {
        Host.BUNDLES.forEach { open(installed(it)).close() }
        assertEquals(2, caches.list()!!.size)
    }

    @Test
    fun whereNoCacheCanBeWrittenItAnswersAllTheSame() {
        val installed = installed("albert")
        val expected = open(installed).use { it.run(installed.ids(8)).toList() }
        open(installed, scratch.newFile("in the way")).use { assertEquals(expected, it.run(installed.ids(8)).toList()) }
    }

    @Test
    fun aFileThatIsNoModelIsRefusedInWords() {
        val installed = installed("distilbert")
        for (damage in listOf<(File) -> Unit>({ it.writeBytes(ByteArray(0)) }, { it.writeText("not a model".repeat(99)) }, { it.delete() })) {
            damage(installed.file)
            assertTrue("cannot open model.tflite" in assertFailsWith<EngineException> { open(installed) }.message!!)
        }
        assertEquals(emptyList(), caches.list().orEmpty().toList(), "nothing half made is left")
    }

    @Test
    fun threadsThatTypeAtTheSameTimeGetTheirOwnAnswers() {
        val checks = SelfChecks(File(scratch.root, "checks"), "host")
        checks.open(installed("distilbert"), LiteRtEngine.kind(THREADS, caches)).use { classifier ->
            val texts = listOf("what a lovely film", "worst app ever!!")
            val alone = texts.map { classifier.classify(it).first() }
            assertNotEquals(alone[0].label, alone[1].label)
            val wrong = mutableListOf<Any>()
            val workers = List(4) { worker ->
                thread { repeat(50) { if (classifier.classify(texts[worker % 2]).first() != alone[worker % 2]) synchronized(wrong) { wrong.add(worker) } } }
            }
            workers.forEach(Thread::join)
            assertEquals(emptyList(), wrong)
        }
    }
}
