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
