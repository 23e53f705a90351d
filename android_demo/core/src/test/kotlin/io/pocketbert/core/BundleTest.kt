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
    fun aManifestThatContradictsItselfIsRefused() {
        assertTrue("output is not \"logits\", float32, [1, 3]" in changed("[1, 3]", "[1, 2]"))
        assertTrue("output is not" in changed("float32", "float16"))
        assertTrue("output is not" in changed("\"logits\"", "\"scores\""))
        assertTrue("its files are [model.tflite]" in changed("\"path\": \"model.tflite\", \"entry\"", "\"path\": \"model\", \"entry\""))
        assertTrue("is no name with" in changed("seq_{length}", "seq_{other}"))
        assertTrue("artifacts are none" in refusal({ manifest = manifest.replace(Regex("\"artifacts\".*]}]", RegexOption.DOT_MATCHES_ALL), "\"artifacts\": []") }))
        assertTrue("sha256" in refusal({ manifest = manifest.replace(Regex("\"sha256\": \"[0-9a-f]{64}\""), "\"sha256\": \"0\"") }))
    }

    @Test
    fun eachTaskSaysWhatItsArtifactsGive() {
        val (entities, answers) = Bundle.open(entityBundle()).manifest to Bundle.open(answerBundle()).manifest
        assertEquals(Task.TOKEN_CLASSIFICATION to listOf("logits"), entities.task to entities.outputs)
        assertEquals(Task.QUESTION_ANSWERING to listOf("start_logits", "end_logits"), answers.task to answers.outputs)
        assertEquals(listOf(false, true), listOf(entities, answers).map { it.pairs })
    }

    @Test
    fun whatBelongsToAnotherTaskIsRefused() {
        val refused = { fake: FakeBundle, old: String, new: String ->
            assertTrue(old in fake.manifest, old)
            fake.manifest = fake.manifest.replace(old, new)
            assertFailsWith<BundleException> { Bundle.open(fake) }.message!!
        }
        val (multi, notMulti) = "\"multi_label\": true" to "\"multi_label\": false"
        assertTrue("pairs is missing or not" in refused(FakeBundle(), notMulti, "$notMulti, \"pairs\": 1"))
        assertTrue("'outputs' belongs to another task" in refused(FakeBundle(), notMulti, "$notMulti, \"outputs\": []"))
        assertTrue("multi_label is true, which token" in refused(entityBundle(), notMulti, multi))
        assertTrue("pairs is true, which token" in refused(entityBundle(), notMulti, "$notMulti, \"pairs\": true"))
        assertTrue("output is not" in refused(entityBundle(), "[1, null, 3]", "[1, 3]"))
        assertTrue("pairs is false, which question" in refused(answerBundle(), "\"pairs\": true", "\"pairs\": false"))
        assertTrue("labels repeat, are empty, or belong" in refused(answerBundle(), "\"labels\": []", "\"labels\": [\"a\"]"))
        assertTrue("outputs is not" in refused(answerBundle(), "start_logits", "stop_logits"))
        assertTrue("'output' belongs to another task" in refused(answerBundle(), notMulti, "$notMulti, \"output\": {}"))
    }

    @Test
    fun goldenLogitsByTokenAreARowForEachId() {
        val case = { oracle: String -> """{"cases": [{"text": "", "input_ids": [2, 3], "oracle": {"int8": $oracle}}]}""" }
        assertEquals(listOf(1f, 2f, 3f, 4f, 5f, 6f), Bundle.open(entityBundle(case("[[1, 2, 3], [4, 5, 6]]"))).golden().cases[0].oracle.getValue("int8").toList())
        val refusal = { fake: FakeBundle -> assertFailsWith<BundleException> { Bundle.open(fake).golden() }.message!! }
        assertTrue("logits for 1 of 2 ids" in refusal(entityBundle(case("[[1, 2, 3]]"))))
        assertTrue("2 logits for 3 labels" in refusal(entityBundle(case("[[1, 2], [4, 5]]"))))
        assertTrue("a list of lists" in refusal(entityBundle(case("[1, 2]"))))
        assertTrue("3 logits for 2 places" in refusal(answerBundle(case("[[1, 2, 3], [4, 5, 6]]"))))
        assertTrue("two texts, the bundle takes one" in refusal(FakeBundle(case("[1, 2, 3]").replace("\"text\"", "\"text_pair\": \"\", \"text\""))))
    }

    @Test
    fun aBitThatFlipsAnywhereInAManifestIsFound() {
        val whole = FakeBundle().manifestFile()
        for (place in whole.indices) {
            val flipped = whole.copyOf().also { it[place] = (it[place].toInt() xor (1 shl place % 8)).toByte() }
            assertFailsWith<BundleException>("bit ${place % 8} of byte $place") { Manifest.parse(flipped) }
        }
    }

    @Test
    fun aManifestWithoutSealHasTheFirstFieldsOnly() {
        assertTrue("'from' is unknown and no seal vouches for it" in refusal({ isSealed = false }))
        val old = FakeBundle().apply { isSealed = false }
        old.manifest = old.manifest.replace("\"from\": \"the future\",", "")
        assertEquals(8, Bundle.open(old).manifest.maxLength)
    }

    @Test
    fun aPathThatLeavesTheBundleIsRefused() {
        for (path in listOf("../x", "/etc/x", "a/../../x", "..\\\\x", "C:/x", "", "a\\u0000b")) {
            assertTrue("leaves the bundle" in changed("\"path\": \"golden.json\"", "\"path\": \"$path\""), path)
        }
    }

    @Test
    fun anAlteredOrMissingFileIsNamed() {
        val verify = { bundle: Bundle -> bundle.verify(bundle.manifest.artifact("tflite")) }
        val longer = { content: ByteArray -> content + 0 }
        val asLong = { content: ByteArray -> content.copyOf().also { it[0]++ } } // which only its hash tells
        for (change in listOf(longer, asLong)) {
            val altered = { name: String -> { fake: FakeBundle -> fake.files[name] = change(fake.files.getValue(name)) } }
            assertTrue("tokenizer.safetensors is not the file" in refusal(altered("tokenizer.safetensors")) { it.tokenizer() })
            assertTrue("golden.json is not the file" in refusal(altered("golden.json")) { it.golden() })
            assertTrue("model.tflite is not the file" in refusal(altered("model.tflite"), verify))
        }
        assertTrue("model.tflite cannot be read" in refusal({ files.remove("model.tflite") }, verify))
        assertTrue("no manifest.json" in assertFailsWith<BundleException> { Bundle.open { throw java.io.IOException() } }.message!!)
    }

    @Test
    fun noMoreIsReadThanTheManifestSays() {
        var read = 0L
        val endless = object : java.io.InputStream() {
            override fun read() = 0.also { read++ }

            override fun read(block: ByteArray) = block.size.also { read += it }
        }
        val fake = FakeBundle()
        val bundle = Bundle.open { path -> if (path == Manifest.FILE) fake.open(path) else endless }
        assertTrue("is not the file" in assertFailsWith<BundleException> { bundle.golden() }.message!!)
        assertTrue("more than" in assertFailsWith<BundleException> { Bundle.open { endless } }.message!!)
        assertTrue(read < 20_000_000, "$read bytes")
    }

    @Test
    fun goldenLogitsAreAsManyAsLabels() {
        val case = """{"cases": [{"text": "", "input_ids": [2, 3], "oracle": {"int8": [1, 2]}}]}"""
        assertTrue("2 logits for 3 labels" in assertFailsWith<BundleException> { Bundle.open(FakeBundle(case)).golden() }.message!!)
    }

    @Test
    fun aMaximumBelowTheSpecialTokensIsRefused() {
        val short = refusal({ manifest = manifest.replace("[4, 8]", "[1]").replace("\"max_length\": 8", "\"max_length\": 1") }) { it.tokenizer() }
        assertTrue("max_length 1 has no room" in short)
    }

    @Test
    fun aFormatThatIsNotThereIsNamedWithThoseThatAre() {
        assertTrue("no coreml artifact: it has tflite" in refusal({}) { it.manifest.artifact("coreml") })
    }
}
