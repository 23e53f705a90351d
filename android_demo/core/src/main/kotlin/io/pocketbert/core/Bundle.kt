/*
 * A bundle as `pocketbert export` writes it: the manifest, and files that are compared with their hashes when opened.
 *
 * Takes a folder, or anything else that opens files by name (Android's assets). Returns the tokenizer, the golden cases,
 * and artifacts that are known to be the exported ones. Leaves out: running artifacts (an Engine does).
 */
package io.pocketbert.core

import java.io.ByteArrayOutputStream
import java.io.File
import java.io.IOException
import java.io.InputStream
import java.security.MessageDigest

/** Opens a file of a bundle by its path, as `AssetManager.open("bundle/$path")` does. Throws [IOException]. */
fun interface BundleSource {
    fun open(path: String): InputStream
}

/**
 * A text, or two, with what it must become: ids before padding, and the logits to reproduce by an artifact's activations. Of
 * logits by id those of each id lie together.
 */
class GoldenCase(val text: String, val textPair: String?, val ids: IntArray, val oracle: Map<String, FloatArray>)

/** The golden cases, and how far a probability may be off: kernels round differently, a wrong kernel moves tenths. */
class Golden(val tolerance: Float, val cases: List<GoldenCase>)

/** An opened bundle. Immutable, so safe to share between threads. */
class Bundle private constructor(private val source: BundleSource, internal val manifestFile: ByteArray, val manifest: Manifest) {
    /** Names the bundle: the manifest holds the hash of every other file. */
    val id: String by lazy { sha256(manifestFile).take(ID_DIGITS) }

    /** The same bundle, whose files are in a folder. */
    internal fun inFolder(folder: File) = Bundle({ path -> File(folder, path).inputStream() }, manifestFile, manifest)

    /** The tokenizer, ready to use. Throws [BundleException] for an altered file or an unknown tokenizer part. */
    fun tokenizer(): Tokenizer = naming(manifest.tokenizerTables.path) {
        val tokenizer = Tokenizer.read(bytes(manifest.tokenizerTables))
        if (tokenizer.specials > manifest.maxLength) throw BundleException("max_length ${manifest.maxLength} has no room for special tokens")
        tokenizer
    }

    /** The golden cases. Throws [BundleException] for an altered file. */
    fun golden(): Golden = naming(manifest.golden.path) {
        val fields = Fields(parseJson(bytes(manifest.golden).decodeToString()))
        val kinds = manifest.artifacts.map { it.activations }.distinct()
        val tolerance = fields.number("tolerance", DEFAULT_TOLERANCE)
        if (!(tolerance > 0 && tolerance < 1)) throw BundleException("the tolerance $tolerance is none")
        Golden(
            tolerance.toFloat(),
            fields.children("cases").map { case ->
                val ids = case.ints("input_ids")
                GoldenCase(case.text("text"), textPair(case), ids, kinds.associateWith { logits(case.child("oracle"), it, ids.size) })
            },
        )
    }

    private fun textPair(case: Fields): String? {
        if ("text_pair" !in case) return null
        if (!manifest.pairs) throw BundleException("a golden case has two texts, the bundle takes one")
        return case.text("text_pair")
    }

    /** Logits of a case: one row, or one for each id. */
    private fun logits(oracle: Fields, kind: String, ids: Int): FloatArray {
        val byText = manifest.task == Task.SEQUENCE_CLASSIFICATION
        val rows = if (byText) listOf(oracle.floats(kind)) else oracle.rows(kind)
        if (rows.size != manifest.rows(ids)) throw BundleException("a golden case has logits for ${rows.size} of $ids ids")
        val wrong = rows.find { it.size != manifest.columns }
        if (wrong != null) throw BundleException("a golden case has ${wrong.size} logits for ${manifest.columns} ${if (manifest.labels.isEmpty()) "places" else "labels"}")
        return FloatArray(rows.size * manifest.columns) { rows[it / manifest.columns][it % manifest.columns] }
    }

    /** Compares every file of an artifact with its hash. Throws [BundleException] naming the first that differs. */
    fun verify(artifact: Artifact) = artifact.files.forEach { file -> read(file) { _, _ -> } }

    private fun bytes(file: BundleFile): ByteArray {
        val content = ByteArrayOutputStream(file.bytes.coerceIn(0, MAX_RESERVED).toInt())
        read(file) { block, size -> content.write(block, 0, size) }
        return content.toByteArray()
    }

    /** Hands over a file block by block, then compares it with the manifest. Throws [BundleException]. */
    internal fun read(file: BundleFile, take: (ByteArray, Int) -> Unit) {
        val digest = MessageDigest.getInstance("SHA-256")
        var left = file.bytes
        try {
            source.open(file.path).use { stream ->
                val block = ByteArray(BLOCK)
                while (true) {
                    val size = stream.read(block)
                    if (size < 0 || left < 0) break
                    left -= size
                    digest.update(block, 0, size)
                    take(block, size)
                }
            }
        } catch (problem: IOException) {
            throw BundleException("${file.path} cannot be read: copy or export the bundle again", problem)
        }
        if (left != 0L || hexadecimal(digest.digest()) != file.sha256) {
            throw BundleException("${file.path} is not the file that was exported: copy or export the bundle again")
        }
    }

    companion object {
        private const val BLOCK = 1 shl 16 // bytes read at a time
        private const val ID_DIGITS = 16 // of a sha256: enough to tell bundles apart
        private const val DEFAULT_TOLERANCE = 0.05 // of bundles that do not say: on real checkpoints 0.009 was the largest gap
        private const val LARGEST_MANIFEST = 1 shl 24 // bytes: a hundred thousand labels fit; more is no manifest
        private const val MAX_RESERVED = 1L shl 24 // a manifest may claim any size: more than this is not believed in advance

        /** Opens the bundle in a folder. */
        fun open(folder: File): Bundle = open { path -> File(folder, path).inputStream() }

        /** Opens a bundle. Reads manifest.json only. Throws [BundleException]. */
        fun open(source: BundleSource): Bundle {
            val content = try {
                source.open(Manifest.FILE).use(::readManifest)
            } catch (problem: IOException) {
                throw BundleException("no ${Manifest.FILE}: is it a bundle made by `pocketbert export`?", problem)
            }
            return Bundle(source, content, naming(Manifest.FILE) { Manifest.parse(content) })
        }

        private fun readManifest(stream: InputStream): ByteArray {
            val content = ByteArrayOutputStream()
            val block = ByteArray(BLOCK)
            while (true) {
                val size = stream.read(block)
                if (size < 0) return content.toByteArray()
                content.write(block, 0, size)
                if (content.size() > LARGEST_MANIFEST) throw BundleException("${Manifest.FILE} has more than $LARGEST_MANIFEST bytes")
            }
        }

        /** Puts the file's name before whatever is wrong with it. */
        private inline fun <T> naming(file: String, read: () -> T): T = try {
            read()
        } catch (problem: BundleException) {
            val message = problem.message.orEmpty()
            throw if (message.startsWith(file)) problem else BundleException("$file: $message", problem)
        }
    }
}

private const val HEX_LETTERS = "0123456789abcdef"

private fun hexadecimal(bytes: ByteArray) =
    bytes.joinToString("") { HEX_LETTERS[it.toInt() shr 4 and 15].toString() + HEX_LETTERS[it.toInt() and 15] }

internal fun sha256(content: ByteArray): String = hexadecimal(MessageDigest.getInstance("SHA-256").digest(content))
