/* A bundle is installed once, verified, and never replaced by anything but a whole one. */
package io.pocketbert.core

import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import java.io.File
import java.io.IOException
import java.io.InputStream
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertNull
import kotlin.test.assertTrue

class BundleStoreTest {
    @get:Rule
    val scratch = TemporaryFolder()

    private val folder by lazy { File(scratch.root, "store") }
    private val store by lazy { BundleStore(folder) }

    /** A second bundle: another label, so another manifest. */
    private fun successor() = FakeBundle().apply { manifest = manifest.replace("PERHAPS", "MAYBE") }

    private fun files() = folder.walk().filter { it.isFile }.map { it.name }.sorted().toList()

    private fun labels() = store.installed("tflite")?.bundle?.manifest?.labels

    @Test
    fun theArtifactBecomesAFileBesideWhatAClassifierNeeds() {
        val installed = store.install(FakeBundle(), "tflite")
        assertEquals("weights", installed.file.readText())
        assertEquals(listOf("golden.json", "manifest.json", "model.tflite", "tokenizer.safetensors"), files())
        installed.bundle.run { tokenizer(); golden(); verify(installed.artifact) }
    }

    @Test
    fun aSecondStartReadsTheManifestAlone() {
        store.install(FakeBundle(), "tflite")
        val opened = mutableListOf<String>()
        store.install({ path -> opened.add(path); FakeBundle().open(path) }, "tflite")
        assertEquals(listOf("manifest.json"), opened)
    }

    @Test
    fun aNewBundleTakesThePlaceOfTheOld() {
        val old = store.install(FakeBundle(), "tflite")
        assertEquals(listOf("NO", "YES", "MAYBE"), store.install(successor(), "tflite").bundle.manifest.labels)
        assertFalse(old.file.exists())
        assertEquals(4, files().size)
    }

    @Test
    fun aDamagedSourceIsNamedAndLeavesWhatWasThere() {
        store.install(FakeBundle(), "tflite")
        val damaged = successor().apply { files["model.tflite"] = "weighty".encodeToByteArray() }
        val refusal = assertFailsWith<BundleException> { store.install(damaged, "tflite") }
        assertTrue("model.tflite is not the file that was exported" in refusal.message!!)
        assertEquals(listOf("NO", "YES", "PERHAPS"), labels())
        assertFalse(files().any { it.endsWith(".part") })
    }

    @Test
    fun aSourceThatBreaksOffLeavesWhatWasThereAndTheNextTryEndsTheWork() {
        store.install(FakeBundle(), "tflite")
        val broken = BundleSource { path -> if (path == "model.tflite") Broken() else successor().open(path) }
        assertTrue("model.tflite cannot be read" in assertFailsWith<BundleException> { store.install(broken, "tflite") }.message!!)
        assertEquals(listOf("NO", "YES", "PERHAPS"), labels())
        store.install(successor(), "tflite")
        assertEquals(listOf("NO", "YES", "MAYBE"), labels())
    }

    private class Broken : InputStream() {
        private var left = 3

        override fun read(): Int = if (left-- > 0) 'w'.code else throw IOException("unplugged")
    }

    @Test
    fun aFullDiskIsToldInMegabytesBeforeAnythingIsCopied() {
        store.install(FakeBundle(), "tflite")
        val refusal = assertFailsWith<BundleException> { BundleStore(folder) { 10 }.install(successor(), "tflite") }
        assertTrue("there is no room for the model" in refusal.message!!)
        assertEquals(listOf("NO", "YES", "PERHAPS"), labels())
    }

    @Test
    fun aFolderThatCannotBeWrittenIsToldInWords() {
        val file = scratch.newFile("in the way")
        val refusal = assertFailsWith<BundleException> { BundleStore(file) { Long.MAX_VALUE }.install(FakeBundle(), "tflite") }
        assertTrue("cannot be kept on this device" in refusal.message!!, refusal.message)
    }

    @Test
    fun whatWasCutOffLaterIsCopiedAgain() {
        val file = store.install(FakeBundle(), "tflite").file
        file.writeText("wei")
        assertNull(store.installed("tflite"))
        assertContentEquals("weights".encodeToByteArray(), store.install(FakeBundle(), "tflite").file.readBytes())
    }

    @Test
    fun aSecondFormatJoinsTheFirst() {
        val both = FakeBundle().apply {
            files["model.pte"] = "program".encodeToByteArray()
            val added = """, {"format": "executorch", "path": "model.pte", "entry": "forward", "any_length": true,
                "activations": "int8", "files": [${entry("model.pte", files.getValue("model.pte"))}]}]}"""
            manifest = manifest.removeSuffix("]}") + added
        }
        val first = store.install(both, "tflite").file
        assertNull(store.installed("executorch"))
        assertEquals("program", store.install(both, "executorch").file.readText())
        assertTrue(first.exists())
    }

    @Test
    fun nothingIsInstalledInAnEmptyFolder() = assertNull(store.installed("tflite"))
}
