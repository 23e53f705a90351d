/*
 * What is fuzzed: everything that reads a file which came from elsewhere, and the tokenizer on any text.
 *
 * Takes any bytes. Each target may throw BundleException; whatever else comes out of it is a find. Jazzer calls
 * fuzzerTestOneInput, which needs nothing of Jazzer's; FuzzTest calls the same with bytes that are always the same.
 * Leaves out: how bytes are made, and how long.
 */
package io.pocketbert.core

import java.io.File

/** Whether each token of the last text stands inside it, behind those before, on whole code points. */
internal fun isAligned(encoding: Encoding, text: String): Boolean {
    val tokens = (0 until encoding.size).filter { encoding.sequences[it] != Encoding.NONE }
    return tokens.all { encoding.starts[it] in 0 until encoding.ends[it] && encoding.ends[it] <= text.length } &&
        tokens.zipWithNext().all { (a, b) -> encoding.starts[a] <= encoding.starts[b] && encoding.ends[a] <= encoding.ends[b] && encoding.words[b] - encoding.words[a] in 0..1 }
}

/** Returns null if `read` throws what it may. */
internal fun <T> refusing(read: () -> T): T? = try {
    read()
} catch (_: BundleException) {
    null
}

internal object JsonFuzz {
    @JvmStatic
    fun fuzzerTestOneInput(data: ByteArray) {
        refusing { parseJson(data.decodeToString()) }
    }
}

/** The bytes of a safetensors file. */
internal object TensorFileFuzz {
    private val tensors = listOf("blank.pages", "words.labels", "words.values", "scores", "")

    @JvmStatic
    fun fuzzerTestOneInput(data: ByteArray) {
        val file = refusing { TensorFile(data) } ?: return
        for (name in tensors) {
            refusing { file.chars(name) }
            refusing { file.ints(name) }
            refusing { file.doubles(name) }
        }
        refusing { TokenizerReader(file).read() }
    }
}

/** A manifest with its seal, or, if it ends with a 0, the same sealed anew so that what comes behind is reached. */
internal object ManifestFuzz {
    @JvmStatic
    fun fuzzerTestOneInput(data: ByteArray) {
        val file = if (data.isNotEmpty() && data.last() == 0.toByte()) seal(data.decodeToString(0, data.size - 1)) else data
        val bundle = refusing { Bundle.open { path -> if (path == Manifest.FILE) file.inputStream() else data.inputStream() } } ?: return
        val manifest = bundle.manifest
        check(manifest.paddedLength(1) > 0 && manifest.lengths.last() == manifest.maxLength && manifest.columns > 0)
        refusing { bundle.golden() }
        refusing { bundle.tokenizer() }
        for (artifact in manifest.artifacts) refusing { bundle.verify(artifact) }
    }
}

/** golden.json of a bundle whose manifest vouches for it. */
internal object GoldenFuzz {
    private val EMPTY = "{}".encodeToByteArray()
    private val fake = FakeBundle(EMPTY)

    @JvmStatic
    fun fuzzerTestOneInput(data: ByteArray) {
        val manifest = fake.manifest.replace(entry("golden.json", EMPTY), entry("golden.json", data))
        val bundle = Bundle.open { path -> if (path == Manifest.FILE) seal(manifest).inputStream() else data.inputStream() }
        val golden = refusing { bundle.golden() } ?: return
        check(golden.tolerance > 0 && golden.cases.all { case -> case.oracle.values.all { it.size == bundle.manifest.labels.size } })
    }
}

/** Tables of a tokenizer with some numbers changed: what reads them refuses them, or every text becomes ids. */
internal object TablesFuzz {
    private val texts = listOf("", "Good  films [MASK]s ``bad'' \u00c9\u0327\u0301\ud800", "\uac00\ud7a3\u4e2d 1 \ud83d\ude00\u200d", "bad ".repeat(50))

    @JvmStatic
    fun fuzzerTestOneInput(data: ByteArray) {
        val base = BASES[if (data.isEmpty()) 0 else data[0].toInt() and 1]
        val edited = Edits(base, data).file()
        val tokenizer = refusing { Tokenizer.read(edited) } ?: return
        for (text in texts) {
            check(tokenizer.encode(text).all { it >= 0 })
            check(isAligned(tokenizer.align(text), text))
            if (tokenizer.specials <= LIMIT) check(tokenizer.encode(text, LIMIT).size <= LIMIT)
        }
        tokenizer.encode(texts[1], texts[2])
    }

    private const val LIMIT = 8
}

/** A text in UTF-16, unpaired surrogates and all, or in UTF-8: it becomes ids, at most as many as asked for. */
internal object EncodeFuzz {
    private const val WINDOW = 7
    private val tokenizers = tables().map(Tokenizer::read)

    private fun tables(): List<ByteArray> {
        val files = System.getProperty("pocketbert.fuzz.tables", "").split(File.pathSeparator).filter { it.isNotEmpty() }
        return BASES.map { (program, arrays) -> tensorFile(program, arrays) } + files.map { File(it).readBytes() }
    }

    @JvmStatic
    fun fuzzerTestOneInput(data: ByteArray) {
        val wide = data.isNotEmpty() && data[0].toInt() and 1 == 1
        val text = if (wide) String(data, Charsets.UTF_16LE).plus(halves(data)) else data.decodeToString()
        for (tokenizer in tokenizers) {
            val whole = tokenizer.encode(text)
            check(whole.size >= tokenizer.specials && whole.all { it >= 0 })
            val cut = tokenizer.encode(text, tokenizer.specials + 3)
            check(cut.size == minOf(whole.size, tokenizer.specials + 3))
            check(tokenizer.encode(text, text, 9).size <= 9)
            check(isAligned(tokenizer.align(text), text) && tokenizer.align(text).ids.contentEquals(whole))
            check(tokenizer.windows("", text, WINDOW, 1).all { it.size <= WINDOW && isAligned(it, text) })
        }
    }

    /** Bytes as code units, whatever they say; Java's own decoder mends surrogates. */
    private fun halves(data: ByteArray) = String(CharArray(data.size / 2) { ((data[2 * it].toInt() and 0xFF) or (data[2 * it + 1].toInt() shl 8)).toChar() })
}

/** Programs with their arrays: WordPiece as in the other tests, and one with every step there is. */
internal val BASES: List<Pair<String, Map<String, Any>>> = listOf(PROGRAM to tables(), EVERY_STEP to everyTable())

private const val EVERY_STEP = """{"version": 1, "normalizer": [
    {"step": "charsmap", "trie": "chars", "texts": "chars", "graphemes": "graphemes"}, {"step": "map", "table": "lower"},
    {"step": "order", "table": "ranks"}, {"step": "replace", "pattern": "``", "content": "\""}, {"step": "collapse", "content": " "}],
    "pre_tokenizer": [{"step": "split", "table": "blank"}, {"step": "metaspace", "replacement": "_", "prepend": true, "split": true}],
    "model": {"type": "Unigram", "trie": "pieces", "scores": "scores", "unk_id": 1},
    "added_tokens": [{"id": 8, "single_word": true, "lstrip": true, "rstrip": true, "normalized": false}],
    "single": [-1, 3], "pair": [-1, 3, -2, 3]}"""

private fun everyTable(): Map<String, Any> = tables() + table("words", mapOf(' '.code to 1) + ('a'..'z').associate { it.code to 2 }) +
    table("ranks", mapOf(0xB4 to 230, 0xB8 to 202)) + table("graphemes", mapOf('`'.code to 2, '\r'.code to 3)) +
    mapOf("graphemes.transitions" to CharArray(2 * 17) { (it % 2 or (if (it % 3 == 0) 0x8000 else 0)).toChar() }) +
    trie("chars", mapOf("G" to 0, "Go" to 1, "``" to 2)) + mapOf("chars.starts" to intArrayOf(0, 1, 1, 3), "chars.texts" to intArrayOf(103, 34, 32)) +
    trie("pieces", listOf("_", "_good", "_bad", "film", "s", "a", "b").withIndex().associate { (id, word) -> word to id + 2 }) +
    mapOf("scores" to DoubleArray(10) { -it.toDouble() })

/** Reads bytes as changes to tables: five bytes each, which say where and what. */
private class Edits(base: Pair<String, Map<String, Any>>, private val data: ByteArray) {
    private var program = base.first
    private val arrays = base.second.toMutableMap()

    fun file(): ByteArray {
        for (at in 1..data.size - SIZE step SIZE) apply(byte(at), byte(at + 1) shl 8 or byte(at + 2), byte(at + 3) shl 8 or byte(at + 4))
        return tensorFile(program, arrays)
    }

    private fun byte(at: Int) = data[at].toInt() and 0xFF

    private fun apply(what: Int, where: Int, value: Int) {
        val names = arrays.keys.sorted()
        when (what % (names.size + 2)) {
            names.size -> number(where, value)
            names.size + 1 -> string(where, value)
            else -> names[what % (names.size + 2)].let { arrays[it] = changed(arrays.getValue(it), where, value) }
        }
    }

    private fun changed(array: Any, where: Int, value: Int): Any = when (array) {
        is CharArray -> if (where >= CUT) array.copyOf(value % (array.size + 1)) else array.copyOf().also { if (it.isNotEmpty()) it[where % it.size] = value.toChar() }
        is IntArray -> if (where >= CUT) array.copyOf(value % (array.size + 1)) else array.copyOf().also { if (it.isNotEmpty()) it[where % it.size] = int(value) }
        else -> (array as DoubleArray).let { if (where >= CUT) it.copyOf(value % (it.size + 1)) else it.copyOf().also { new -> if (new.isNotEmpty()) new[where % new.size] = double(value) } }
    }

    private fun int(value: Int) = ODD_INTS.getOrElse(value) { value - HALF }

    private fun double(value: Int) = ODD_DOUBLES.getOrElse(value) { value.toDouble() }

    private fun number(where: Int, value: Int) = replace(Regex("-?[0-9]+"), where, "${int(value)}")

    private fun string(where: Int, value: Int) {
        val known = Regex("\"[^\"]*\"").findAll(program).map { it.value }.toList() + listOf("\"\"", "\"ab\"", "true", "false", "null", "[]", "{}")
        replace(Regex("\"[^\"]*\"|true|false"), where, known[value % known.size])
    }

    private fun replace(what: Regex, where: Int, text: String) {
        val found = what.findAll(program).toList()
        if (found.isNotEmpty()) program = program.replaceRange(found[where % found.size].range, text)
    }

    private companion object {
        const val SIZE = 5
        const val CUT = 0xF000 // a place from here on stands for cutting the array
        const val HALF = 0x4000
        val ODD_INTS = listOf(0, 1, -1, -2, -3, 2, 3, 8, 9, 10, 255, 256, 0xD800, 0x10FFFF, 0x110000, Int.MAX_VALUE, Int.MIN_VALUE)
        val ODD_DOUBLES = listOf(0.0, -0.0, Double.NaN, Double.POSITIVE_INFINITY, Double.NEGATIVE_INFINITY, 1e308, -1e308)
    }
}
