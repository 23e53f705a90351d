/* A bundle is read as it was exported; what is damaged, foreign or dangerous is refused by name. */
package io.pocketbert.core

import org.junit.Test
import java.nio.file.Files
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class BundleTest {
    private fun refusal(change: FakeBundle.() -> Unit, use: (Bundle) -> Unit = {}): String {
        val fake = FakeBundle().apply(change)
        return assertFailsWith<BundleException> { use(Bundle.open(fake)) }.message!!
    }

    private fun changed(old: String, new: String): String = refusal({
        assertTrue(old in manifest, old)
        manifest = manifest.replace(old, new)
    })

    @Test
    fun aManifestIsReadAndFieldsOfTheFutureAreIgnored() {
        val manifest = Bundle.open(FakeBundle()).manifest
        assertEquals(listOf("NO", "YES", "PERHAPS"), manifest.labels)
        assertEquals(listOf(4, 8), manifest.lengths)
        assertEquals(listOf(4, 4, 8, 8), listOf(1, 4, 5, 8).map(manifest::paddedLength))
        assertEquals("seq_{length}", manifest.artifact("tflite").entry)
    }

    @Test
    fun aBundleInAFolderIsTheSame() {
        val folder = Files.createTempDirectory("bundle").toFile()
        FakeBundle().writeTo(folder)
        Bundle.open(folder).run { verify(manifest.artifact("tflite")) }
        folder.deleteRecursively()
    }

    @Test
    fun anotherVersionIsRefused() {
        assertTrue("format_version is 2" in changed("\"format_version\": 1", "\"format_version\": 2"))
        assertTrue("format_version is null" in changed("\"format_version\": 1,", ""))
    }

    @Test
    fun aWrongFieldIsNamed() {
        assertTrue("task 'translation'" in changed("sequence-classification", "translation"))
        assertTrue("labels" in changed("[\"NO\", \"YES\", \"PERHAPS\"]", "[]"))
        assertTrue("labels" in changed("\"PERHAPS\"", "\"NO\""))
        assertTrue("multi_label" in changed("\"multi_label\": false", "\"multi_label\": 0"))
        assertTrue("lengths" in changed("[4, 8]", "[8, 4]"))
        assertTrue("max_length" in changed("\"max_length\": 8", "\"max_length\": 9"))
        assertTrue("pad_id" in changed("\"pad_id\": 0", "\"pad_id\": -1"))
        assertTrue("artifacts[0].entry" in changed("\"entry\"", "\"exit\""))
        assertTrue("manifest.json" in changed("{\"format_version\"", "[\"format_version\""))
    }

    @Test
    fun aPathThatLeavesTheBundleIsRefused() {
        for (path in listOf("../x", "/etc/x", "a/../../x", "..\\\\x", "C:/x", "")) {
            assertTrue("leaves the bundle" in changed("\"path\": \"golden.json\"", "\"path\": \"$path\""), path)
        }
    }

    @Test
    fun anAlteredOrMissingFileIsNamed() {
        val altered = { name: String -> { fake: FakeBundle -> fake.files[name] = fake.files.getValue(name) + 0 } }
        assertTrue("tokenizer.safetensors is not the file" in refusal(altered("tokenizer.safetensors")) { it.tokenizer() })
        assertTrue("golden.json is not the file" in refusal(altered("golden.json")) { it.golden() })
        val verify = { bundle: Bundle -> bundle.verify(bundle.manifest.artifact("tflite")) }
        assertTrue("model.tflite is not the file" in refusal(altered("model.tflite"), verify))
        assertTrue("model.tflite cannot be read" in refusal({ files.remove("model.tflite") }, verify))
        assertTrue("no manifest.json" in assertFailsWith<BundleException> { Bundle.open { throw java.io.IOException() } }.message!!)
    }

    @Test
    fun aFormatThatIsNotThereIsNamedWithThoseThatAre() {
        assertTrue("no coreml artifact: it has tflite" in refusal({}) { it.manifest.artifact("coreml") })
    }
}
