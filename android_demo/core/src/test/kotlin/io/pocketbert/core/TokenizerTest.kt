/* A tokenizer does what its tables say, for all threads at once; what it does not know it refuses by name. */
package io.pocketbert.core

import org.junit.Test
import java.util.concurrent.Callable
import java.util.concurrent.Executors
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class TokenizerTest {
    private val tokenizer = Tokenizer.read(tensorFile())

    private fun ids(text: String, maxLength: Int = Int.MAX_VALUE) = tokenizer.encode(text, maxLength).toList()

    private fun refusal(program: String = PROGRAM, arrays: Map<String, Any> = tables()) =
        assertFailsWith<BundleException> { Tokenizer.read(tensorFile(program, arrays)) }.message!!

    @Test
    fun textsBecomeIds() {
        assertEquals(listOf(CLS, SEP), ids(""))
        assertEquals(listOf(CLS, 4, 6, 7, SEP), ids(" GOOD films "))
        assertEquals(listOf(CLS, UNK, 8, 5, SEP), ids("goods!  [MASK]bad"))
        assertEquals(listOf(CLS, UNK, SEP), ids("bad".repeat(4)), "longer than longest_word")
        assertEquals(listOf(CLS, UNK, 5, SEP), ids("\ud800 bad"))
    }

    @Test
    fun longTextsAreCutBeforeTheLastSpecialToken() {
        assertEquals(listOf(CLS, 4, 4, SEP), ids("good ".repeat(9), 4))
        assertEquals(listOf(CLS, SEP), ids("good", 2))
        assertFailsWith<IllegalArgumentException> { ids("good", 1) }
    }

    @Test
    fun ofTwoTextsTheLongerIsCutFirst() {
        val cut = { a: Int, b: Int, room: Int ->
            val found = tokenizer.encode("good ".repeat(a), "bad ".repeat(b), room + 3)
            found.count { it == 4 } to found.count { it == 5 }
        }
        assertEquals(5 to 2, cut(5, 2, 7))
        assertEquals(4 to 2, cut(5, 2, 6))
        assertEquals(2 to 4, cut(2, 5, 6))
        assertEquals(3 to 2, cut(9, 8, 5))
        assertEquals(2 to 3, cut(8, 8, 5))
        assertEquals(0 to 0, cut(8, 8, 0))
    }

    private fun spans(encoding: Encoding, text: String) = (0 until encoding.size)
        .filter { encoding.sequences[it] >= 0 }.map { text.substring(encoding.starts[it], encoding.ends[it]) }

    @Test
    fun eachTokenStandsSomewhereInTheText() {
        val text = "\uD83D\uDE0D GOODs\uD800  [MASK]bads"
        val encoding = tokenizer.align(text)
        assertEquals(listOf(CLS, UNK, UNK, 8, 5, 7, SEP), encoding.ids.toList())
        assertEquals(listOf("\uD83D\uDE0D", "GOODs\uD800", "[MASK]", "bad", "s"), spans(encoding, text))
        assertEquals(listOf(-1, 0, 1, 2, 3, 3, -1), encoding.words.toList())
        assertEquals(listOf(-1, 0, 0, 0, 0, 0, -1), encoding.sequences.toList())
        assertEquals(listOf(6, 3, 3), encoding.lengths.toList().subList(3, 6))
        assertEquals(listOf(0 to 0, 0 to 0), listOf(0, 6).map { encoding.starts[it] to encoding.ends[it] })
    }

    @Test
    fun ofTwoTextsEachHasPlacesAndWordsOfItsOwn() {
        val encoding = tokenizer.align("good bad", "films", 6)
        assertEquals(listOf(-1, 0, -1, 1, 1, -1), encoding.sequences.toList())
        assertEquals(listOf(0, 0, 0, 0, 4, 0), encoding.starts.toList())
        assertEquals(listOf(0, 4, 0, 4, 5, 0), encoding.ends.toList())
        assertEquals(listOf(-1, 0, -1, 0, 0, -1), encoding.words.toList())
    }

    @Test
    fun aLongTextIsReadInWindowsThatShareTokens() {
        val text = "good bad film good bad film good"
        val windows = { maxLength: Int, stride: Int? -> tokenizer.windows("film", text, maxLength, stride).map { spans(it, text).drop(1).size } }
        assertEquals(listOf(7), windows(11, 2))
        assertEquals(listOf(6, 3), windows(10, 2))
        assertEquals(listOf(3, 3, 3, 3, 3), windows(7, 2))
        assertEquals(listOf(1, 1, 1, 1, 1, 1, 1), windows(5, null))
        assertEquals(listOf(2, 2, 2, 2, 2, 2), windows(6, null), "half the room where half of maxLength is too much")
        assertTrue("use 0 to 2" in assertFailsWith<IllegalArgumentException> { windows(7, 3) }.message!!)
        assertTrue("leaves no room" in assertFailsWith<IllegalArgumentException> { windows(4, 0) }.message!!)
        assertEquals(1, tokenizer.windows("film", "", 4, 0).size)
    }

    @Test
    fun anUnknownPartIsRefusedByName() {
        assertTrue("normalizer 'rot13'" in refusal(PROGRAM.replace("\"map\"", "\"rot13\"")))
        assertTrue("pre-tokenizer 'cleave'" in refusal(PROGRAM.replace("\"split\"", "\"cleave\"")))
        assertTrue("model 'BPE'" in refusal(PROGRAM.replace("\"WordPiece\"", "\"BPE\"")))
        assertTrue("version '2'" in refusal(PROGRAM.replace("\"version\": 1", "\"version\": 2")))
    }

    @Test
    fun aMissingOrShortenedArrayIsRefusedByName() {
        for (name in tables().keys) assertTrue(name.substringBeforeLast('.') in refusal(arrays = tables() - name), name)
        for (name in listOf("blank.pages", "words.labels", "words.children")) {
            val short = when (val values = tables().getValue(name)) {
                is CharArray -> values.copyOf(values.size - 1)
                else -> (values as IntArray).copyOf(values.size - 1)
            }
            assertTrue("is cut off" in refusal(arrays = tables() + (name to short)), name)
        }
        assertFailsWith<BundleException> { Tokenizer.read(tensorFile().copyOf(100)) }
        assertFailsWith<BundleException> { Tokenizer.read(ByteArray(3)) }
    }

    /** A table with one number changed. */
    private fun lead(array: String, place: Int, number: Int) = refusal(arrays = tables() + (array to when (val values = tables().getValue(array)) {
        is CharArray -> values.copyOf().also { it[place] = number.toChar() }
        else -> (values as IntArray).copyOf().also { it[place] = number }
    }))

    @Test
    fun aNumberThatLeadsOutsideATableIsRefusedBeforeATextMeetsIt() {
        assertTrue("table 'lower' has a number above" in lead("lower.values", 'B'.code, 29))
        assertTrue("takes apart what is no syllable" in lead("lower.values", 'B'.code, 2))
        assertTrue("texts 'lower'" in lead("lower.starts", 3, 27))
        assertTrue("texts 'lower'" in lead("lower.starts", 0, -1))
        assertTrue("texts 'lower'" in lead("lower.texts", 0, 0x110000))
        assertTrue("trie 'words' has children elsewhere" in lead("words.children", 1, 1000))
        assertTrue("trie 'added.written' has a number outside 0 to 0" in lead("added.written.values", 6, 1))
        assertTrue("is cut off" in refusal(arrays = tables() + mapOf("words.labels" to IntArray(0), "words.values" to IntArray(0), "words.children" to IntArray(1))))
    }

    @Test
    fun aProgramThatMakesNoSenseIsRefused() {
        val replace = { pattern: String -> PROGRAM.replace("[{\"step\": \"map\"", "[{\"step\": \"replace\", \"pattern\": \"$pattern\", \"content\": \"a\"}, {\"step\": \"map\"") }
        assertEquals(listOf(CLS, UNK, SEP), Tokenizer.read(tensorFile(replace("b"))).encode("bb").toList())
        assertTrue("replaces an empty text" in refusal(replace("")))
        for (template in listOf("[2, 3]", "[2, -1, -1, 3]", "[-2]", "[-1, -3]")) {
            assertTrue("'single' is no template" in refusal(PROGRAM.replace("[2, -1, 3]", template)), template)
        }
        assertTrue("unk_id is negative" in refusal(PROGRAM.replace("\"unk_id\": 1", "\"unk_id\": -1")))
        val metaspace = "{\"step\": \"metaspace\", \"replacement\": \"ab\", \"prepend\": true, \"split\": true}"
        assertTrue("not one code point" in refusal(PROGRAM.replace("{\"step\": \"split\", \"table\": \"blank\"}", metaspace)))
        val unigram = PROGRAM.replace(Regex("\"model\": \\{[^}]*}"), "\"model\": {\"type\": \"Unigram\", \"trie\": \"words\", \"scores\": \"scores\", \"unk_id\": 1}")
        assertTrue("scores are none" in refusal(unigram, tables() + ("scores" to DoubleArray(0))))
        assertTrue("has a number outside 0 to 7" in refusal(unigram, tables() + ("scores" to DoubleArray(8))))
    }

    @Test
    fun threadsDoNotDisturbEachOther() {
        val texts = List(200) { i -> "good ".repeat(i % 7) + "bad films ".repeat(i % 5) + "[MASK]".repeat(i % 3) }
        val expected = texts.map { ids(it) }
        val pool = Executors.newFixedThreadPool(8)
        val jobs = List(8) { Callable { repeat(50) { assertEquals(expected, texts.map { ids(it) }) } } }
        pool.invokeAll(jobs).forEach { it.get() }
        pool.shutdown()
    }
}
