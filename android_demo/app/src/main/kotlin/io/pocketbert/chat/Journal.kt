/*
 * Keeps the conversation in a file, so that it outlives the process.
 *
 * The file is written anew beside the old one, synced and renamed into its place: a kill or a full disk leaves the old one.
 * A file that cannot be read is as good as none. Leaves out: when to write (Chat.kt). Both calls block.
 */
package io.pocketbert.chat

import io.pocketbert.core.Prediction
import java.io.DataInputStream
import java.io.DataOutputStream
import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.nio.ByteBuffer

class Journal(private val file: File) {
    private val next = File(file.path + ".next")

    /** What was written last; null if there is nothing, or nothing that can be read. */
    fun read(): Saved? = try {
        DataInputStream(file.inputStream().buffered()).use(::saved)
    } catch (_: IOException) {
        null
    }

    /** Throws [IOException] where the disk is full; what was there before is still there then. */
    fun write(saved: Saved) {
        try {
            FileOutputStream(next).use { stream ->
                DataOutputStream(stream.buffered()).apply { put(saved) }.flush()
                stream.fd.sync()
            }
            if (!next.renameTo(file)) throw IOException("${file.name} cannot be replaced")
        } finally {
            next.delete()
        }
    }

    private fun DataOutputStream.put(saved: Saved) {
        writeInt(VERSION)
        put(saved.draft)
        put(saved.wish?.model.orEmpty())
        put(saved.wish?.engine.orEmpty())
        writeInt(saved.messages.size)
        for (message in saved.messages) {
            writeLong(message.id)
            writeBoolean(message.sender == Sender.USER)
            put(message.text)
            put(message.verdict?.label.orEmpty())
            writeFloat(message.verdict?.score ?: 0f)
        }
    }

    private fun saved(input: DataInputStream): Saved {
        if (input.readInt() != VERSION) throw IOException("of another version")
        val draft = input.text()
        val wish = Choice(input.text(), input.text()).takeIf { it.model.isNotEmpty() }
        return Saved(List(input.count(KEPT_MESSAGES)) { message(input) }, draft, wish)
    }

    private fun message(input: DataInputStream) = Message(
        input.readLong(),
        if (input.readBoolean()) Sender.USER else Sender.BOT,
        input.text(),
        Prediction(input.text(), input.readFloat()).takeIf { it.label.isNotEmpty() },
    )

    /** UTF-16 as it is: writeUTF ends at 64 KiB, and an unpaired surrogate has no UTF-8. */
    private fun DataOutputStream.put(text: String) {
        writeInt(text.length)
        writeChars(text)
    }

    private fun DataInputStream.text(): String {
        val bytes = ByteArray(2 * count(LONGEST)).also(::readFully)
        return ByteBuffer.wrap(bytes).asCharBuffer().toString()
    }

    private fun DataInputStream.count(most: Int) = readInt().also { if (it !in 0..most) throw IOException("no count: $it") }

    private companion object {
        const val VERSION = 1
        const val LONGEST = 1 shl 24 // characters; more than this was never written
    }
}
