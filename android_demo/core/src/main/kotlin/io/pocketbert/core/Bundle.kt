/*
 * A bundle as `pocketbert export` writes it: the manifest, and files that are compared with their hashes when opened.
 *
 * Takes a folder, or anything else that opens files by name (Android's assets). Gives the tokenizer, the golden cases,
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

/** A text with what it must become: ids before padding, and the logits to reproduce by an artifact's activations. */
class GoldenCase(val text: String, val ids: IntArray, val oracle: Map<String, FloatArray>)

/** An opened bundle. Immutable, so safe to share between threads. */
class Bundle private constructor(private val source: BundleSource, val manifest: Manifest) {
    /** The tokenizer, ready to use. Throws [BundleException] for an altered file or an unknown tokenizer part. */
    fun tokenizer(): Tokenizer = naming(manifest.tokenizerTables.path) { Tokenizer.read(bytes(manifest.tokenizerTables)) }

    /** The golden cases. Throws [BundleException] for an altered file. */
    fun golden(): List<GoldenCase> = naming(manifest.golden.path) {
        Fields(parseJson(bytes(manifest.golden).decodeToString())).children("cases").map { case ->
            val kinds = manifest.artifacts.map { it.activations }.distinct()
            GoldenCase(case.text("text"), case.ints("input_ids"), kinds.associateWith(case.child("oracle")::floats))
        }
    }

    /** Compares every file of an artifact with its hash. Throws [BundleException] naming the first that differs. */
    fun verify(artifact: Artifact) = artifact.files.forEach { file -> read(file) { _, _ -> } }

    private fun bytes(file: BundleFile): ByteArray {
        val content = ByteArrayOutputStream(file.bytes.coerceIn(0, MAX_RESERVED).toInt())
        read(file) { block, size -> content.write(block, 0, size) }
        return content.toByteArray()
    }

    /** Hands over a file block by block, then compares it with the manifest. */
    private fun read(file: BundleFile, take: (ByteArray, Int) -> Unit) {
        val digest = MessageDigest.getInstance("SHA-256")
        try {
            source.open(file.path).use { stream ->
                val block = ByteArray(BLOCK)
                while (true) {
                    val size = stream.read(block)
                    if (size < 0) break
                    digest.update(block, 0, size)
                    take(block, size)
                }
            }
        } catch (problem: IOException) {
            throw BundleException("${file.path} cannot be read: copy or export the bundle again", problem)
        }
        if (hexadecimal(digest.digest()) != file.sha256) {
            throw BundleException("${file.path} is not the file that was exported: copy or export the bundle again")
        }
    }

    private fun hexadecimal(bytes: ByteArray) = bytes.joinToString("") { HEX[it.toInt() shr 4 and 15].toString() + HEX[it.toInt() and 15] }

    companion object {
        private const val HEX = "0123456789abcdef"
        private const val BLOCK = 1 shl 16 // bytes read at a time
        private const val MAX_RESERVED = 1L shl 24 // a manifest may claim any size: more than this is not believed in advance

        /** Opens the bundle in a folder. */
        fun open(folder: File): Bundle = open { path -> File(folder, path).inputStream() }

        /** Opens a bundle. Reads manifest.json only. Throws [BundleException]. */
        fun open(source: BundleSource): Bundle {
            val text = try {
                source.open(Manifest.FILE).use { it.readBytes().decodeToString() }
            } catch (problem: IOException) {
                throw BundleException("no ${Manifest.FILE}: is it a bundle made by `pocketbert export`?", problem)
            }
            return Bundle(source, naming(Manifest.FILE) { Manifest.parse(text) })
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
