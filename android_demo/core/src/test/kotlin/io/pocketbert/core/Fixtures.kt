/*
 * A tokenizer and a bundle of a handful of words, written by the tests themselves.
 *
 * The tokenizer lower-cases A to Z, splits at spaces, has the words of WORDS and puts [CLS] and [SEP] around them.
 */
package io.pocketbert.core

import java.io.ByteArrayOutputStream
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest

internal const val PAD = 0
internal const val UNK = 1
internal const val CLS = 2
internal const val SEP = 3
internal val WORDS = listOf("[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", "film", "##s", "[MASK]")

internal const val PROGRAM = """{"version": 1, "normalizer": [{"step": "map", "table": "lower"}],
    "pre_tokenizer": [{"step": "split", "table": "blank"}],
    "model": {"type": "WordPiece", "trie": "words", "unk_id": 1, "continuation": "##", "longest_word": 10},
    "added_tokens": [{"id": 8, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}],
    "single": [2, -1, 3], "pair": [2, -1, 3, -2, 3]}"""

/** A safetensors file. */
internal fun tensorFile(program: String = PROGRAM, arrays: Map<String, Any> = tables()): ByteArray {
    val data = ByteArrayOutputStream()
    val entries = arrays.map { (name, values) ->
        val (type, bytes) = bytes(values)
        val start = data.size()
        data.write(bytes)
        "\"$name\": {\"dtype\": \"$type\", \"shape\": [0], \"data_offsets\": [$start, ${data.size()}]}"
    }
    val escaped = program.replace("\\", "\\\\").replace("\"", "\\\"").replace("\n", " ")
    val header = "{\"__metadata__\": {\"program\": \"$escaped\"}, ${entries.joinToString()}}".encodeToByteArray()
    val size = ByteBuffer.allocate(Long.SIZE_BYTES).order(ByteOrder.LITTLE_ENDIAN).putLong(header.size.toLong())
    return size.array() + header + data.toByteArray()
}

private fun bytes(values: Any): Pair<String, ByteArray> = when (values) {
    is CharArray -> "U16" to ByteBuffer.allocate(2 * values.size).order(ByteOrder.LITTLE_ENDIAN)
        .also { buffer -> values.forEach(buffer::putChar) }.array()
    is IntArray -> "I32" to ByteBuffer.allocate(4 * values.size).order(ByteOrder.LITTLE_ENDIAN)
        .also { buffer -> values.forEach(buffer::putInt) }.array()
    else -> "F64" to ByteBuffer.allocate(8 * (values as DoubleArray).size).order(ByteOrder.LITTLE_ENDIAN)
        .also { buffer -> values.forEach(buffer::putDouble) }.array()
}

internal fun tables(): Map<String, Any> = buildMap {
    putAll(table("blank", mapOf(' '.code to 1)))
    putAll(table("lower", ('A'..'Z').associate { it.code to 3 + (it - 'A') }))
    put("lower.starts", IntArray(27) { it })
    put("lower.texts", IntArray(26) { 'a'.code + it })
    putAll(trie("words", WORDS.withIndex().associate { (id, word) -> word to id }))
    putAll(trie("added.written", mapOf("[MASK]" to 0)))
    putAll(trie("added.normalized", emptyMap()))
}

/** A table whose first page holds what is given, and whose second is empty. */
internal fun table(name: String, values: Map<Int, Int>): Map<String, Any> = mapOf(
    "$name.pages" to CharArray(0x1100) { if (it == 0) '\u0000' else '\u0001' },
    "$name.values" to CharArray(512) { (values[it] ?: 0).toChar() },
)

internal fun trie(name: String, keys: Map<String, Int>): Map<String, Any> {
    val prefixes = keys.keys.flatMap { key -> (1..key.length).map(key::take) }.distinct()
    val nodes = listOf("") + prefixes.sortedWith(compareBy({ it.length }, { it }))
    val children = nodes.runningFold(1) { start, node -> start + nodes.count { it.dropLast(1) == node && it.isNotEmpty() } }
    return mapOf(
        "$name.labels" to IntArray(nodes.size) { nodes[it].lastOrNull()?.code ?: 0 },
        "$name.values" to IntArray(nodes.size) { keys[nodes[it]] ?: -1 },
        "$name.children" to children.toIntArray(),
    )
}

internal fun hash(content: ByteArray) =
    MessageDigest.getInstance("SHA-256").digest(content).joinToString("") { "%02x".format(it) }

internal fun entry(path: String, content: ByteArray) =
    """{"path": "$path", "bytes": ${content.size}, "sha256": "${hash(content)}"}"""

/** A bundle in memory; change its files or its manifest before it is opened. */
internal class FakeBundle(golden: ByteArray) : BundleSource {
    constructor(golden: String = """{"cases": []}""") : this(golden.encodeToByteArray())

    val files = mutableMapOf(
        "tokenizer.safetensors" to tensorFile(),
        "golden.json" to golden,
        "model.tflite" to "weights".encodeToByteArray(),
    )
    var isSealed = true
    var manifest = """{"format_version": 1, "task": "sequence-classification", "labels": ["NO", "YES", "PERHAPS"],
        "output": {"name": "logits", "dtype": "float32", "shape": [1, 3]},
        "multi_label": false, "lengths": [4, 8], "max_length": 8, "pad_id": 0, "from": "the future",
        "tokenizer_tables": ${entry("tokenizer.safetensors", files.getValue("tokenizer.safetensors"))},
        "golden": ${entry("golden.json", files.getValue("golden.json"))},
        "artifacts": [{"format": "tflite", "path": "model.tflite", "entry": "seq_{length}", "any_length": false,
            "activations": "int8", "files": [${entry("model.tflite", files.getValue("model.tflite"))}]}]}"""

    override fun open(path: String) =
        (if (path == Manifest.FILE) manifestFile() else files[path] ?: throw java.io.FileNotFoundException(path)).inputStream()

    fun manifestFile() = if (isSealed) seal(manifest) else manifest.encodeToByteArray()
}

/** The same bundle for entities, whose labels are O, B-FILM and I-FILM. */
internal fun entityBundle(golden: String = """{"cases": []}""") = FakeBundle(golden).apply {
    manifest = manifest.replace("sequence-classification", "token-classification").replace("[1, 3]", "[1, null, 3]")
        .replace("[\"NO\", \"YES\", \"PERHAPS\"]", "[\"O\", \"B-FILM\", \"I-FILM\"]")
}

/** The same bundle for answers. */
internal fun answerBundle(golden: String = """{"cases": []}""") = FakeBundle(golden).apply {
    val outputs = listOf("start_logits", "end_logits").joinToString { "{\"name\": \"$it\", \"dtype\": \"float32\", \"shape\": [1, null]}" }
    manifest = manifest.replace("sequence-classification", "question-answering").replace(Regex("\"output\": \\{[^}]*}"), "\"pairs\": true, \"outputs\": [$outputs]")
        .replace("[\"NO\", \"YES\", \"PERHAPS\"]", "[]")
}

/** A file of the contract, beside the apps in the repository; its lines as JSON. */
internal fun contract(file: String): List<Any?> = File("../../runtime/contract/$file").readLines().map(::parseJson)

/** A manifest with the hash of all that comes before it, as BUNDLE.md says. */
internal fun seal(manifest: String): ByteArray {
    val body = manifest.dropLast(1).encodeToByteArray()
    return body + ",\n \"sha256\": \"${hash(body)}\"\n}\n".encodeToByteArray()
}

/** Writes the files of a bundle into a folder. */
internal fun FakeBundle.writeTo(folder: File) {
    File(folder, Manifest.FILE).writeBytes(manifestFile())
    files.forEach { (name, content) -> File(folder, name).writeBytes(content) }
}
