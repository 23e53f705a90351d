/*
 * A strict reader for JSON (RFC 8259): text in; Map, List, String, Long, Double, Boolean or null out.
 *
 * Our own, as it is small: Android's org.json takes much that is no JSON, is not on a plain JVM, and Swift has another
 * one. Strings keep whatever \u escapes say, unpaired surrogates included. Leaves out: writing JSON, big numbers.
 */
package io.pocketbert.core

/** What a JSON text says. Throws [BundleException] naming the place of the first mistake. */
fun parseJson(text: String): Any? = JsonReader(text).document()

private const val MAX_DEPTH = 64 // deeper than any file of ours; keeps a hostile file from overflowing the stack
private const val HEX_DIGITS = 4
private const val HEX = 16

private class JsonReader(private val text: String) {
    private var place = 0

    fun document(): Any? {
        val value = value(0)
        blanks()
        if (place < text.length) fail("the end")
        return value
    }

    private fun value(depth: Int): Any? {
        if (depth > MAX_DEPTH) fail("less nesting")
        blanks()
        return when (peek()) {
            '{' -> objectValue(depth)
            '[' -> array(depth)
            '"' -> string()
            't' -> word("true", true)
            'f' -> word("false", false)
            'n' -> word("null", null)
            else -> number()
        }
    }

    private fun objectValue(depth: Int): Map<String, Any?> {
        val fields = LinkedHashMap<String, Any?>()
        items('}') {
            blanks()
            val name = string()
            blanks()
            expect(':')
            fields[name] = value(depth + 1)
        }
        return fields
    }

    private fun array(depth: Int): List<Any?> {
        val values = ArrayList<Any?>()
        items(']') { values.add(value(depth + 1)) }
        return values
    }

    /** What stands between brackets, separated by commas. */
    private inline fun items(close: Char, item: () -> Unit) {
        place++
        blanks()
        if (peek() == close) {
            place++
            return
        }
        while (true) {
            item()
            blanks()
            if (peek() == close) break
            expect(',')
        }
        place++
    }

    private fun string(): String {
        expect('"')
        val start = place
        while (peek() >= ' ' && peek() != '"' && peek() != '\\') place++
        if (peek() == '"') return text.substring(start, place++) // no escapes: most strings
        val letters = StringBuilder(text.substring(start, place))
        while (peek() != '"') {
            val letter = text[place++]
            if (letter < ' ') fail("an escaped control")
            letters.append(if (letter == '\\') escape() else letter)
        }
        place++
        return letters.toString()
    }

    private fun escape(): Char = when (val letter = peek().also { place++ }) {
        '"', '\\', '/' -> letter
        'b' -> '\b'
        'f' -> '\u000c'
        'n' -> '\n'
        'r' -> '\r'
        't' -> '\t'
        'u' -> hex()
        else -> fail("an escape")
    }

    private fun hex(): Char {
        val digits = text.substring(place, minOf(place + HEX_DIGITS, text.length))
        if (digits.length < HEX_DIGITS || digits.any { it !in '0'..'9' && it.lowercaseChar() !in 'a'..'f' }) fail("hex digits")
        place += HEX_DIGITS
        return digits.toInt(HEX).toChar()
    }

    private fun number(): Any {
        val found = NUMBER.find(text, place)
        if (found == null || found.range.first != place) fail("a value")
        place = found.range.last + 1
        val digits = found.value
        return digits.toLongOrNull() ?: digits.toDouble()
    }

    private fun word(word: String, value: Any?): Any? {
        if (!text.startsWith(word, place)) fail("a value")
        place += word.length
        return value
    }

    private fun blanks() {
        while (place < text.length && text[place] in " \t\r\n") place++
    }

    private fun expect(letter: Char) {
        if (peek() != letter) fail("'$letter'")
        place++
    }

    private fun peek(): Char = if (place < text.length) text[place] else fail("more")

    private fun fail(expected: String): Nothing = throw BundleException("not JSON: expected $expected at character $place")

    private companion object {
        val NUMBER = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")
    }
}

/** A JSON object read field by field, so that an error can name the field. Fields that nobody asks for are ignored. */
internal class Fields(content: Any?, private val where: String = "") {
    private val content = content as? Map<*, *> ?: throw BundleException("${where.ifEmpty { "the file" }} is not an object")

    operator fun contains(name: String) = name in content

    fun text(name: String): String = value(name, "text") as? String ?: fail(name, "text")

    fun flag(name: String): Boolean = value(name, "true or false") as? Boolean ?: fail(name, "true or false")

    fun long(name: String): Long = value(name, "a whole number") as? Long ?: fail(name, "a whole number")

    fun int(name: String): Int = long(name).let { if (it.toInt().toLong() == it) it.toInt() else fail(name, "a small number") }

    fun number(name: String, default: Double): Double =
        if (name in content) (content[name] as? Number ?: fail(name, "a number")).toDouble() else default

    fun list(name: String): List<*> = value(name, "a list") as? List<*> ?: fail(name, "a list")

    fun child(name: String) = Fields(value(name, "an object"), path(name))

    fun children(name: String): List<Fields> = list(name).mapIndexed { i, child -> Fields(child, "${path(name)}[$i]") }

    fun texts(name: String): List<String> = list(name).map { it as? String ?: fail(name, "a list of texts") }

    fun ints(name: String): IntArray =
        list(name).map { (it as? Long)?.takeIf { wide -> wide.toInt().toLong() == wide }?.toInt() ?: fail(name, "a list of small numbers") }
            .toIntArray()

    fun floats(name: String): FloatArray = floats(name, list(name))

    /** A list of lists of numbers. */
    fun rows(name: String): List<FloatArray> = list(name).map { floats(name, it as? List<*> ?: fail(name, "a list of lists of numbers")) }

    private fun floats(name: String, numbers: List<*>): FloatArray =
        numbers.map { (it as? Number)?.toFloat()?.takeIf(Float::isFinite) ?: fail(name, "a list of numbers") }.toFloatArray()

    private fun value(name: String, kind: String): Any = content[name] ?: fail(name, kind)

    private fun path(name: String) = if (where.isEmpty()) name else "$where.$name"

    private fun fail(name: String, kind: String): Nothing = throw BundleException("${path(name)} is missing or not $kind")
}
