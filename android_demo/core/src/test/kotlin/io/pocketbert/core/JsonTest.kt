/* JSON is read as RFC 8259 says, and nothing else is. */
package io.pocketbert.core

import org.junit.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue

class JsonTest {
    @Test
    fun everyKindOfValueIsRead() {
        val text = """ {"a": [1, -2.5, 1e3, true, false, null], "b": {"c": ""}, "d": []} """
        val expected = mapOf("a" to listOf(1L, -2.5, 1000.0, true, false, null), "b" to mapOf("c" to ""), "d" to emptyList<Any>())
        assertEquals<Any?>(expected, parseJson(text))
    }

    @Test
    fun escapesAreReadUnpairedSurrogatesIncluded() {
        assertEquals("\"\\/\b\u000c\n\r\té😀\ud800x", parseJson(""""\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00\uD800x""""))
    }

    @Test
    fun whatIsNoJsonIsRefusedWithItsPlace() {
        val broken = listOf("", "{", "[1,]", "{\"a\" 1}", "{a: 1}", "01", "1.", "+1", "nul", "\"\\x\"", "\"\\u12\"", "\"\n\"", "1 2", "'a'")
        for (text in broken) {
            assertTrue("not JSON" in assertFailsWith<BundleException>(text) { parseJson(text) }.message!!, text)
        }
        assertFailsWith<BundleException> { parseJson("[".repeat(100_000)) }
    }
}
